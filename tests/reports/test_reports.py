"""Reports: the JSON of the contract, for good builds, bad ones and plans, and back again."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given

from layercache.builds.builder import Builder
from layercache.dockerfile.instructions import Cmd, Copy, Env, Run
from layercache.errors import LayerCacheError, StepFailed, UsageError
from layercache.reports.reasons import CAUSES, KINDS, WHATS
from layercache.reports.report import Report
from layercache.testing.base_images import MemoryImages
from layercache.testing.executors import MemoryExecutor
from layercache.testing.laws import BASE_IMAGES
from layercache.testing.strategies import versions
from tests.narrow import report_of
from tests.tally import law

NUMBER = (int, float)
STEP: dict[str, type | tuple[type, ...]] = {
    "stage": int,
    "index": int,
    "onbuild": (int, type(None)),
    "line": int,
    "op": str,
    "text": str,
    "decision": (str, type(None)),
    "key": (str, type(None)),
    "evidence": (str, type(None)),
    "layer": (str, type(None)),
    "seconds": NUMBER,
    "saved_seconds": NUMBER,
    "reason": (dict, type(None)),
}
"""What every step has, and of which type; more may be there."""

DECISIONS = {"hit", "miss", "skip", None}
PLANNED = DECISIONS | {"would-run", "undetermined"}
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
KEY = re.compile(r"[0-9a-f]{64}")


def check(value, *, plan=False):
    """Whether `value` is a report by the contract; gives it back from JSON text."""
    text = json.dumps(value, allow_nan=False)
    value = json.loads(text)
    assert set(value) >= {"schema", "ok", "error", "steps", "image", "seconds", "saved_seconds"}
    assert value["schema"] == 1
    assert isinstance(value["ok"], bool)
    assert (value["error"] is None) == value["ok"]
    if value["error"] is not None:
        assert set(value["error"]) == {"code", "message", "line"}
        assert re.fullmatch(r"[a-z-]+", value["error"]["code"])
        assert value["error"]["message"]
        assert isinstance(value["error"]["line"], int | None)
    for step in value["steps"]:
        _check_step(step, plan)
    image = value["image"]
    if image is not None:
        assert set(image) >= {"config_digest", "manifest_digest", "diff_ids", "chain_id"}
        assert all(DIGEST.fullmatch(digest) for digest in image["diff_ids"])
        assert image["chain_id"] == "" or DIGEST.fullmatch(image["chain_id"])
        for name in ("config_digest", "manifest_digest"):
            assert image[name] is None or DIGEST.fullmatch(image[name])
    assert value["seconds"] >= 0
    assert abs(value["saved_seconds"] - sum(s["saved_seconds"] for s in value["steps"])) < 1e-3
    assert Report.from_dict(value).to_dict() == value
    return value


def _check_step(step, plan):
    for name, kind in STEP.items():
        assert name in step, f"{name} is missing"
        assert isinstance(step[name], kind), f"{name} is {step[name]!r}"
    decision = step["decision"]
    assert decision in (PLANNED if plan else DECISIONS)
    assert step["stage"] >= -1
    assert step["index"] >= 0
    if decision in (None, "skip"):
        assert step["key"] is None
        assert step["reason"] is None
    if step["key"] is not None:
        assert KEY.fullmatch(step["key"])
    assert (step["evidence"] is not None) == (decision == "hit")
    if step["layer"] is not None:
        assert DIGEST.fullmatch(step["layer"])
        assert decision in ("hit", "miss")
    if decision != "hit":
        assert step["saved_seconds"] == 0
    if decision == "miss":
        assert step["reason"] is not None
    if plan and decision in ("would-run", "undetermined"):
        assert all(set(place) == {"stage", "index"} for place in step["until"])
        assert step["likely"] in (None, "hit", "would-run", "miss")
    reason = step["reason"]
    if reason is not None:
        assert set(reason) >= {"cause", "changes", "step"}
        assert reason["cause"] in CAUSES
        if reason["step"] is not None:
            assert set(reason["step"]) == {"stage", "index"}
        for change in reason["changes"]:
            assert {"kind", "path", "what"} <= set(change) <= {"kind", "path", "what", "old", "new"}
            assert change["kind"] in KINDS
            assert change["what"] in WHATS


def _builder():
    return Builder(
        executor=MemoryExecutor(base_images=True, secrets={"token": b"t"}),
        images=MemoryImages(BASE_IMAGES),
        jobs=1,
    )


@law(60)
@given(versions())
def test_any_build_reports_by_the_contract(version):
    """Random recipes, cold and warm, planned and built, good and failing."""
    builder = _builder()
    for _ in range(2):
        for plan in (True, False):
            run = builder.plan if plan else builder.build
            try:
                value = run(
                    list(version.recipe), context=version.context, project="p", **version.options
                ).to_dict()
            except LayerCacheError as error:
                value = report_of(error).to_dict()
            check(value, plan=plan)


TEXT = """\
ARG BASE=base:2
FROM $BASE AS build
COPY a.txt /a
RUN one
LABEL x=y
FROM scratch AS unused
RUN never
FROM scratch
COPY --from=build /a /a
WORKDIR /w
CMD ["x"]
"""


def test_where_steps_stand():
    """Stages count from 0 (-1 before the first), FROM is 0, triggers are extra steps after it;
    lines are those of the file; what decides nothing has no decision."""
    from layercache.dockerfile.recipe import Dockerfile

    value = check(_builder().build(Dockerfile.parse(TEXT), context={"a.txt": "1"}).to_dict())
    rows = [
        (s["stage"], s["index"], s["onbuild"], s["line"], s["op"], s["decision"])
        for s in value["steps"]
    ]
    assert rows == [
        (-1, 0, None, 1, "ARG", None),
        (0, 0, None, 2, "FROM", None),
        (0, 0, 0, 2, "RUN", "miss"),
        (0, 1, None, 3, "COPY", "miss"),
        (0, 2, None, 4, "RUN", "miss"),
        (0, 3, None, 5, "LABEL", None),
        (1, 0, None, 6, "FROM", None),
        (1, 1, None, 7, "RUN", "skip"),
        (2, 0, None, 8, "FROM", None),
        (2, 1, None, 9, "COPY", "miss"),
        (2, 2, None, 10, "WORKDIR", "miss"),
        (2, 3, None, 11, "CMD", None),
    ]
    assert value["steps"][2]["text"] == "RUN echo triggered > /triggered"
    assert len(value["image"]["diff_ids"]) == 2


def test_text_is_before_expansion(layers):
    """`text` joins continued lines and expands nothing."""
    built = layers.build("FROM scratch\nENV A=1\nRUN echo \\\n  $A > /f\n", {})
    assert built.steps[2].text.split() == ["RUN", "echo", "$A", ">", "/f"]


def test_identical_steps_share_key_and_decision(layers):
    """The same step in two stages has one key, one decision, one layer; it runs once."""
    built = layers.build(
        "FROM scratch\nRUN same\nFROM scratch\nRUN same\nCOPY --from=0 / /x/\n", {}
    )
    one, two = built.find("RUN same")
    assert (one.key, one.decision, one.layer) == (two.key, two.decision, two.layer)
    assert built.executions == ["same"]


def test_a_failed_build_reports_what_was_decided(layers):
    """The step that failed is a miss, what came before is there, the rest is skipped; the error
    has its code, message and line."""
    text = "FROM scratch\nRUN one\nRUN fail 3\nRUN two\n"
    with pytest.raises(StepFailed) as caught:
        layers.build(text, {})
    value = check(report_of(caught.value).to_dict())
    assert not value["ok"]
    assert value["error"]["code"] == "step-failed"
    assert value["error"]["line"] == 3
    assert "exit status 3" in value["error"]["message"]
    assert [s["decision"] for s in value["steps"]] == [None, "miss", "miss", "skip"]
    with pytest.raises(StepFailed) as caught:
        layers.build(text, {})
    assert [s.decision for s in report_of(caught.value).steps] == [None, "hit", "miss", "skip"]


@pytest.mark.parametrize(
    ("text", "code", "line"),
    [
        ("FROM scratch\nCOPY nothing /\n", "source", 2),
        ("FROM scratch\nRUN exit 2\n", "step-failed", 2),
        ("FROM nothing:1\nRUN x\n", "source", None),
    ],
)
def test_errors_have_codes(text, code, line):
    """Each kind of failure has a stable word, and the line where there is one."""
    from layercache.dockerfile.recipe import Dockerfile

    with pytest.raises(LayerCacheError) as caught:
        _builder().build(Dockerfile.parse(text), context={})
    value = check(report_of(caught.value).to_dict())
    assert value["error"]["code"] == code
    assert line is None or value["error"]["line"] == line


def test_instructions_as_values_have_no_lines():
    """A recipe of values reports the canonical text of each, in stage 0 from index 0."""
    result = _builder().build(
        [Copy("a.txt", "/a"), Env(A="1"), Run("one"), Cmd(["x"])], context={"a.txt": "1"}
    )
    value = check(result.to_dict())
    assert [(s["stage"], s["index"], s["line"], s["text"]) for s in value["steps"]] == [
        (0, 0, 0, "COPY a.txt /a"),
        (0, 1, 0, "ENV A=1"),
        (0, 2, 0, "RUN one"),
        (0, 3, 0, 'CMD ["x"]'),
    ]


def test_saved_seconds_are_what_was_recorded():
    """A hit saves what the step took when it ran."""
    from layercache.testing.executors import SlowExecutor

    builder = Builder(executor=SlowExecutor(MemoryExecutor(), 0.02), jobs=1)
    first = builder.build([Run("one")], context={})
    second = builder.build([Run("one")], context={})
    assert first.steps[0].seconds >= 0.02
    assert second.steps[0].seconds == 0
    assert second.steps[0].saved_seconds == first.steps[0].seconds
    assert second.report.saved_seconds == first.steps[0].seconds


def test_other_schemas_are_refused():
    """A report of another schema, or with a field missing, is a `UsageError`."""
    value = _builder().build([Run("one")], context={}).to_dict()
    with pytest.raises(UsageError, match="schema 2"):
        Report.from_dict({**value, "schema": 2})
    for name in ("ok", "steps", "image"):
        with pytest.raises(UsageError):
            Report.from_dict({k: v for k, v in value.items() if k != name})
    with pytest.raises(UsageError):
        Report.from_dict({})


def test_logs_of_steps_are_kept(layers):
    """What a step printed can be read after it ran, and when it is reused."""
    text = "FROM scratch\nRUN echo hello\n"
    assert layers.build(text, {}).result.log(1) == b"hello\n"
    assert layers.build().result.log(1) == b"hello\n"
