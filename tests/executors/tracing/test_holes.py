"""Directed cases that a trace must not say too little of; and mutants that do, all caught."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import attrs
import pytest

from layercache.builds.result import BuildResult
from layercache.executors.rootfs import tracer_client as tracing
from layercache.inputs import observed as values
from layercache.model.observations import ABSENT, METADATA, SIZE, Observations
from layercache.model.task import Result
from tests.executors.rootfs.conftest import Bench
from tests.executors.tracing.battery import EXPECTED, battery_base, missing, observe, program
from tests.executors.tracing.fuzz import context
from tests.executors.tracing.holes import CASES, Case, wrong_hits
from tests.executors.tracing.machines import Machine
from tests.executors.tracing.tracers import drops, use_tracer


@pytest.fixture(scope="module")
def clean(
    tmp_path_factory: pytest.TempPathFactory, base: Path
) -> Iterator[Callable[[Case], BuildResult]]:
    """Unwatched builds of the changed files, each made once."""
    machine = Machine(tmp_path_factory.mktemp("clean"), base)
    known: dict[str, BuildResult] = {}

    def build(case: Case) -> BuildResult:
        if case.name not in known:
            known[case.name] = machine.build(case.text, context(case.changed))
        return known[case.name]

    yield build
    machine.close()


def test_directed_cases(
    machines: Callable[..., Machine], clean: Callable[[Case], BuildResult]
) -> None:
    """Each change that a command could have seen makes it run; each that it could not, does not."""
    assert list(wrong_hits(machines(), clean)) == []
    print(f"{len(CASES)} run, seed 0")


# -- mutants ------------------------------------------------------------------------------------

TRACERS: Final = {
    **{f"drops {letter}": drops(bit) for letter, bit in (
        ("N", 1), ("E", 2), ("S", 4), ("L", 16), ("R", 32), ("D", 64), ("X", 128)
    )},
    "drops Z": drops(8),
    "waits for a question before it says that times count": """\
note = TraceFS.note
def asked(self, path, bit):
    note(self, path, bit & ~4 if bit & 2 else bit)
TraceFS.note = asked
""",
    "forgets the first request of each kind": """\
note = TraceFS.note
kinds = set()
def dropped(self, path, bit):
    if bit in kinds:
        note(self, path, bit)
    elif path.startswith(b"t/") or path.startswith(b"w/"):
        kinds.add(bit)
    else:
        note(self, path, bit)
TraceFS.note = dropped
""",
}  # fmt: skip
"""Tracers that say too little: what is patched in each."""


@pytest.fixture(scope="module")
def battery(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    if program() is None:
        pytest.skip("no C compiler with static libraries: apt-get install gcc libc6-dev")
    return battery_base()


@pytest.mark.parametrize("mutant", TRACERS)
def test_a_tracer_that_drops_something_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, battery: bytes, mutant: str
) -> None:
    """The battery shows, or the executor itself refuses, what is missing."""
    use_tracer(monkeypatch, TRACERS[mutant])
    bench = Bench(tmp_path / "scratch", battery)
    try:
        assert any(_caught(bench, kind) for kind in EXPECTED)
    finally:
        bench.executor.close()


def _caught(bench: Bench, kind: str) -> bool:
    expected = EXPECTED[kind]
    result: Result = observe(bench, "/observe", kind)
    return result.observed is None or missing(result.observed, expected) != {}


def _without(name: str) -> Callable[[pytest.MonkeyPatch], None]:
    """A mutant of what is made of the observations, by the function it breaks."""
    return _PATCHES[name]


def _said(original: Callable[..., object], *arguments: Any) -> Observations:
    """What the tracer of the library says of one step."""
    found = original(*arguments)
    assert isinstance(found, Observations)
    return found


def _ignore_capture(patch: pytest.MonkeyPatch) -> None:
    original = tracing.observations_of

    def without(seen: Any, captured: Any, *rest: Any) -> Any:
        captured.lookups.clear()
        captured.listed.clear()
        return original(seen, captured, *rest)

    patch.setattr(tracing, "observations_of", without)


def _ignore_root(patch: pytest.MonkeyPatch) -> None:
    original = tracing.observations_of

    def without(*arguments: Any) -> Any:
        found = _said(original, *arguments)
        rows = tuple((path, bits) for path, bits in found.rows if path)
        return attrs.evolve(found, rows=rows)

    patch.setattr(tracing, "observations_of", without)


def _ignore_user(patch: pytest.MonkeyPatch) -> None:
    original = tracing.observations_of

    def without(*arguments: Any) -> Any:
        return attrs.evolve(_said(original, *arguments), derived=())

    patch.setattr(tracing, "observations_of", without)


def _ignore_bit(bit: int) -> Callable[[pytest.MonkeyPatch], None]:
    def patch_it(patch: pytest.MonkeyPatch) -> None:
        original = tracing.observations_of

        def without(*arguments: Any) -> Any:
            found = _said(original, *arguments)
            rows = tuple((path, bits & ~bit) for path, bits in found.rows)
            return attrs.evolve(found, rows=rows)

        patch.setattr(tracing, "observations_of", without)

    return patch_it


def _ignore_names(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(values, "Linked", _NeverLinked)


class _NeverLinked:
    """No tree is an instance of it."""


def _ignore_owners(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(values, "_identity", lambda node: b"%d" % node.mode)


def _ignore_modes(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(values, "_identity", lambda node: b"%d" % node.uid)


_PATCHES: Final[dict[str, Callable[[pytest.MonkeyPatch], None]]] = {
    "what capturing compared": _ignore_capture,
    "the root directory": _ignore_root,
    "who the user is": _ignore_user,
    "absent names": _ignore_bit(ABSENT),
    "times": _ignore_bit(METADATA),
    "sizes": _ignore_bit(SIZE),
    "names of one file": _ignore_names,
    "owners": _ignore_owners,
    "modes": _ignore_modes,
}


@pytest.mark.parametrize("mutant", _PATCHES)
def test_values_that_leave_something_out_are_caught(
    machines: Callable[..., Machine],
    clean: Callable[[Case], BuildResult],
    monkeypatch: pytest.MonkeyPatch,
    mutant: str,
) -> None:
    """A directed case is reused that a real run would have given otherwise."""
    _without(mutant)(monkeypatch)
    wrong = next((t for t in wrong_hits(machines(), clean) if "executed" not in t), "")
    assert wrong, f"no case notices that {mutant} do not count"
