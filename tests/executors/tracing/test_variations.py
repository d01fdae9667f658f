"""Steps that give something else from run to run are seen and named."""

from __future__ import annotations

from layercache.builds.request import Request
from layercache.dockerfile.recipe import Dockerfile
from tests.executors.tracing.machines import Machine

TEXT = """\
FROM base
RUN head -c 8 /dev/urandom > /chance
RUN cat /proc/sys/kernel/random/uuid > /var.log; echo same > /same
RUN echo 1 > /steady
"""


def test_a_key_knows_how_many_results_it_has_had(machine: Machine) -> None:
    """Each execution that gives another layer counts; equal ones do not."""
    counts = []
    for _ in range(3):
        result = machine.build(TEXT, no_cache=lambda origin: origin.index in {1, 3})
        counts.append([step.results for step in result.steps])
    assert counts == [[1, 1, 1, 1], [1, 2, 1, 1], [1, 3, 1, 1]]
    last = machine.build(TEXT)
    assert [step.results for step in last.steps] == [1, 3, 1, 1]
    assert "3 different results" in last.explain(1)
    assert last.to_dict()["steps"][1]["results"] == 3
    assert "results" not in last.to_dict()["steps"][3]


def test_a_probe_says_which_files_differ_and_what_mends_it(machine: Machine) -> None:
    """Reused steps run again; nothing that is recorded changes."""
    first = machine.build(TEXT)
    contexts = {"base": f"oci-layout://{machine.base}"}
    request = Request(recipe=Dockerfile.parse(TEXT), context={}, contexts=contexts)
    probed = {step.text: step for step in machine.builder.probe(request, runs=2)}
    chance = probed["RUN head -c 8 /dev/urandom > /chance"]
    assert not chance.steady
    assert (chance.results, chance.known_results) == (3, 3)
    assert chance.paths == ("chance",)
    assert chance.advice
    log = probed["RUN cat /proc/sys/kernel/random/uuid > /var.log; echo same > /same"]
    assert log.paths == ("var.log",)
    assert any("log" in advice for advice in log.advice)
    assert probed["RUN echo 1 > /steady"].steady
    again = machine.build(TEXT)
    assert again.state == first.state
    assert [step.decision for step in again.steps[1:]] == ["hit"] * 3


def test_a_probe_of_a_step_reused_by_its_trace(machine: Machine) -> None:
    """It runs on the state that it would be put on."""
    text = "FROM base\nCOPY . /w\nRUN cat /w/a > /b\n"
    machine.build(text, {"a": "1"}, trace="auto")
    machine.build(text, {"a": "1", "c": "2"}, trace="auto")
    request = Request(
        recipe=Dockerfile.parse(text),
        context={"a": "1", "c": "2"},
        contexts={"base": f"oci-layout://{machine.base}"},
        trace="auto",
    )
    (probed,) = machine.builder.probe(request)
    assert probed.steady
