"""COPY, ADD and WORKDIR on another parent: the layer that is kept is the one a rerun gives."""

from __future__ import annotations

import io
import random
import tarfile
from collections.abc import Callable
from typing import Any, Final

import attrs
import pytest

from layercache.errors import BuildError, UsageError
from layercache.model.descriptors import State
from layercache.model.observations import Observations
from layercache.model.operations import SOURCE, CopyFiles, CopySource, MakeDirectory
from layercache.model.selectors import Files
from layercache.model.task import Result
from layercache.testing.workbench import Workbench
from layercache.trees.in_memory import DictTree, directory, file, link
from tests.executors.tracing.machines import Machine, evidence, snapshot

SEED: Final = 20261124
_PLACES: Final = ("app", "app/f", "app/d", "app/d/g", "opt", "opt/x", "srv", "etc/group", "f")
_PASSWD: Final = b"root:x:0:0::/:/bin/sh\napp:x:%d:%d::/app:/bin/sh\n%s"


def _archive() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in (("d/g", b"packed"), ("l/inner", b"x"), ("h", b"h")):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


_CONTEXT: Final = DictTree(
    {
        "f": b"f",
        "d/g": file(b"g", 0o755),
        "d/h": b"h",
        "d/e": directory(0o700),
        "l": link("d/g"),
        "t.tar": _archive(),
    }
)


def _parent(chance: random.Random) -> dict[str, Any]:
    """A small parent: files, directories with modes and owners, links, other accounts."""
    files: dict[str, Any] = {}
    for path in _PLACES:
        draw = chance.random()
        if any(
            above in files and not isinstance(files[above], str) and not files[above][0].is_dir
            for above in _above(path)
        ):
            continue
        if draw < 0.25:
            files[path] = directory(chance.choice((0o755, 0o700)), uid=chance.choice((0, 5)))
        elif draw < 0.4:
            files[path] = file(chance.choice((b"1", b"22")), chance.choice((0o644, 0o600)))
        elif draw < 0.5:
            files[path] = link(chance.choice(("/app", "d", "../srv", "absent", "/f")))
    if chance.random() < 0.8:
        number = chance.choice((7, 8))
        more = chance.choice((b"", b"other:x:9:9::/:/bin/sh\n"))
        files["etc/passwd"] = file(_PASSWD % (number, number, more))
    if chance.random() < 0.5:
        files["unrelated"] = file(b"%d" % chance.randint(0, 3))
    return {path: value for path, value in files.items() if not _below_a_leaf(path, files)}


def _above(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:n]) for n in range(1, len(parts))]


def _below_a_leaf(path: str, files: dict[str, Any]) -> bool:
    return any(above in files and not files[above][0].is_dir for above in _above(path))


def _instruction(chance: random.Random) -> CopyFiles | MakeDirectory:
    if chance.random() < 0.2:
        path = chance.choice(("/app", "/app/d/new", "/opt/x", "/srv/y", "/f"))
        return MakeDirectory(path=path, user=chance.choice(("", "app", "nobody", "5")))
    add = chance.random() < 0.3
    patterns = chance.sample(("f", "d", "l", "t.tar", "d/g"), chance.choice((1, 1, 2)))
    destination = chance.choice(
        ("/app/", "/app", "/app/f", "/opt/", "/opt/x", "/new/deep/", "/srv/", "/", "/app/d")
    )
    return CopyFiles(
        name="ADD" if add else "COPY",
        sources=tuple(CopySource(role=SOURCE, pattern=pattern) for pattern in patterns),
        destination=destination,
        chown=chance.choice((None, None, "app", "app:app", "3:4")),
        chmod=chance.choice((None, None, "0600", "755")),
        parents=chance.random() < 0.2,
        unpack=None if add else False,
    )


@attrs.frozen
class _Outcome:
    parent: State
    result: Result | None


def _execute(bench: Workbench, instruction: CopyFiles | MakeDirectory, parent: State) -> _Outcome:
    inputs = {}
    if isinstance(instruction, CopyFiles):
        patterns = tuple(source.pattern for source in instruction.sources)
        inputs[SOURCE] = (bench.context(), Files(patterns))
    try:
        found = bench.execute(None, bench.task(instruction, parent, inputs))  # type: ignore[arg-type]
        return _Outcome(parent, found)
    except (BuildError, UsageError):
        return _Outcome(parent, None)


def test_a_kept_layer_is_that_of_a_rerun() -> None:
    """Random instructions over random parents: where all that was looked at is the same on
    another parent, running there gives the same layer to the byte, and does not fail."""
    chance = random.Random(SEED)
    kept = steps = 0
    while kept < 3000:
        bench = Workbench({"": _CONTEXT})
        instruction = _instruction(chance)
        first = _parent(chance)
        parents = [bench.state(first)]
        for _ in range(4):
            drawn = sorted(_parent(chance).items(), key=lambda item: item[0])
            changed = {**first, **dict(chance.sample(drawn, min(1, len(drawn))))}
            for path in chance.sample(sorted(changed), min(1, len(changed))):
                changed.pop(path)
            changed = {p: v for p, v in changed.items() if not _below_a_leaf(p, changed)}
            parents.append(bench.state(changed))
        outcomes = [_execute(bench, instruction, parent) for parent in parents]
        for one in outcomes:
            if one.result is None:
                continue
            steps += 1
            observed = one.result.observed
            assert isinstance(observed, Observations)
            wanted = bench.inputs.values(one.parent, observed).fingerprint
            for other in outcomes:
                if bench.inputs.values(other.parent, observed).fingerprint != wanted:
                    continue
                if other.parent != one.parent:
                    kept += 1
                assert other.result is not None, (instruction, first)
                assert other.result.layer == one.result.layer, (instruction, first)
    print(f"{kept} run, seed {SEED} ({steps} steps)")


ORDER = """\
FROM base
COPY noise /noise
RUN cat /noise > /seen
WORKDIR /app/deep
COPY --chown=app a b/ ./
ADD c /etc/
COPY --link --chown=1:2 a /linked/
COPY a /noise.d/
RUN ls /app/deep > /names
"""


def test_steps_that_look_at_little_keep_their_layers(machines: Callable[..., Machine]) -> None:
    """An edit before them makes only the commands run; the tree is that of a full run."""
    files = {"noise": "1", "a": "a", "b/f": "f", "c": "c"}
    machine, clean = machines(), machines()
    machine.build(ORDER, files)
    files["noise"] = "2"
    again = machine.build(ORDER, files)
    assert evidence(again) == [
        "miss", "miss", "rebase", "rebase", "rebase", "link", "rebase", "miss",
    ]  # fmt: skip
    assert snapshot(again.tree()) == snapshot(clean.build(ORDER, files).tree())
    assert evidence(machine.build(ORDER, files))[2:5] == ["rebase"] * 3
    assert "reused by rebase" in again.explain(3)


@pytest.mark.parametrize(
    ("before", "path", "what"),
    [
        ("mkdir -p /app; chmod 700 /app", "/app", "metadata"),
        ("mkdir -p /srv; ln -s /srv /app", "/app", "metadata"),
        ("mkdir -p /app; mkfifo /app/a", "/app/a", "added"),
    ],
)
def test_what_is_at_the_destination_counts(
    machine: Machine, before: str, path: str, what: str
) -> None:
    """Another mode, a link, a file in the way: the step runs, and says why."""
    text = "FROM base\nCOPY run /run.sh\nRUN sh /run.sh\nCOPY a /app/\n"
    machine.build(text, {"run": "mkdir -p /app", "a": "1"})
    again = machine.build(text, {"run": before, "a": "1"})
    assert evidence(again)[-1] == "miss"
    reason = again.steps[-1].reason
    assert reason is not None
    assert reason.cause == "observed"
    assert (reason.changes[0].path, reason.changes[0].what) == (path, what)


def test_accounts_count_by_their_numbers(machine: Machine) -> None:
    """--chown by name looks at the accounts: another line changes nothing, another number does."""
    text = "FROM base\nCOPY passwd /etc/passwd\nCOPY --chown=u a /a\n"
    line = "u:x:{0}:{0}::/:/bin/sh\n"
    machine.build(text, {"passwd": line.format(5), "a": "1"})
    more = machine.build(text, {"passwd": "v:x:9:9::/:/bin/sh\n" + line.format(5), "a": "1"})
    assert evidence(more) == ["miss", "rebase"]
    other = machine.build(text, {"passwd": line.format(6), "a": "1"})
    assert evidence(other) == ["miss", "miss"]


def test_the_source_still_counts(machine: Machine) -> None:
    """A file that changes is copied, whatever is known of the destination."""
    text = "FROM base\nCOPY noise /n\nCOPY a /a\n"
    machine.build(text, {"noise": "1", "a": "1"})
    again = machine.build(text, {"noise": "2", "a": "2"})
    assert evidence(again) == ["miss", "miss"]
