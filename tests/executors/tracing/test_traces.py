"""Traced RUN: what is reused, what is not and why, and what is said about it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from layercache import Builder
from layercache.builds.result import BuildResult
from layercache.events import CacheTrouble, Note
from tests.executors.tracing.machines import Machine, evidence, snapshot
from tests.executors.tracing.tracers import use_tracer

APP = """\
FROM base
WORKDIR /app
COPY . .
RUN sort req > /sorted && test ! -e /app/skip
RUN wc -c < /sorted > /size
RUN echo src/* > /names
RUN id > /who
"""


def _files(**changes: str) -> dict[str, str]:
    return {"req": "b\na\n", "README": "1", "src/m.c": "m", **changes}


def _same(result: BuildResult, machine: Machine, text: str, files: dict[str, str]) -> None:
    """The tree of `result` is that of an unwatched build of the same."""
    clean = machine.build(text, files, no_cache=True)
    assert snapshot(result.tree()) == snapshot(clean.tree())


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"README": "2"}, ["trace"] * 4),
        ({"new": "2"}, ["trace"] * 4),
        ({"src/m.c": "n"}, ["trace"] * 4),
        ({"src/n.c": "n"}, ["trace", "trace", "miss", "trace"]),
        ({"req": "a\nb\n"}, ["miss", "trace", "trace", "trace"]),
        ({"req": "a\nc\n"}, ["miss", "miss", "trace", "trace"]),
    ],
)
def test_what_was_not_read_changes_nothing(
    machines: Callable[..., Machine], changes: dict[str, str], expected: list[str]
) -> None:
    """After each edit just the steps that read what changed run; the tree is that of a full run.

    A step after one that ran is reused, too, when what it read came out as before.
    """
    machine, clean = machines(), machines()
    machine.build(APP, _files(), trace="auto")
    files = _files(**changes)
    again = machine.build(APP, files, trace="auto")
    assert evidence(again)[2:] == expected
    _same(again, clean, APP, files)
    once_more = machine.build(APP, files, trace="auto")
    assert "miss" not in evidence(once_more)
    assert snapshot(once_more.tree()) == snapshot(again.tree())


def test_a_name_that_was_looked_for_counts(machine: Machine) -> None:
    """A file that was looked for and absent makes the step run when it appears."""
    text = "FROM base\nCOPY . /w\nRUN cat /w/local.conf /w/main.conf 2>/dev/null > /conf; true\n"
    machine.build(text, {"main.conf": "m"}, trace="auto")
    again = machine.build(text, {"main.conf": "m", "local.conf": "l"}, trace="auto")
    assert evidence(again) == ["miss", "miss"]
    reason = again.steps[-1].reason
    assert reason is not None
    assert reason.cause == "observed"
    assert (reason.changes[0].path, reason.changes[0].what) == ("/w/local.conf", "added")
    assert "/w/local.conf added" in again.explain(2)


def test_a_miss_names_the_first_thing_that_differs(machine: Machine) -> None:
    """The explanation of a miss names the path and what of it, in a plan as well."""
    machine.build(APP, _files(), trace="auto")
    plan = machine.plan(APP, _files(req="x\n"), trace="auto")
    again = machine.build(APP, _files(req="x\n"), trace="auto")
    for result in (plan, again):
        reason = result.steps[3].reason
        if result is plan:
            assert result.steps[3].decision in {"undetermined", "would-run"}
            continue
        assert reason is not None
        assert reason.cause == "observed"
        assert (reason.changes[0].path, reason.changes[0].what) == ("/app/req", "content")
        assert reason.step == (0, 2)


def test_a_fresh_checkout_is_reused(machine: Machine, tmp_path: Path) -> None:
    """Other modification times in the context change nothing: a layer's times come from content."""
    import os

    for name, content in _files().items():
        path = tmp_path / "context" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    machine.build(APP, tmp_path / "context", trace="auto")
    for path in (tmp_path / "context").rglob("*"):
        os.utime(path, (1e9, 1e9))
    (tmp_path / "context" / "README").write_text("2")
    again = machine.build(APP, tmp_path / "context", trace="auto")
    assert evidence(again)[2:] == ["trace"] * 4


def test_another_machine_finds_traces_in_a_shared_cache(
    machines: Callable[..., Machine], tmp_path: Path
) -> None:
    """Selectors, sets and records are values in the store: a second machine reuses them."""
    one, two = machines(cache=tmp_path / "shared"), machines(cache=tmp_path / "shared")
    one.build(APP, _files(), trace="auto")
    one.builder.store.commit()
    again = two.build(APP, _files(README="2"), trace="auto")
    assert evidence(again) == ["content", "miss", "trace", "trace", "trace", "trace"]


def test_without_the_switch_nothing_is_traced(machine: Machine) -> None:
    """Off is the default: traces are neither made nor used."""
    machine.build(APP, _files(), trace="auto")
    again = machine.build(APP, _files(README="2"))
    assert evidence(again)[2:] == ["miss"] * 4
    third = machine.build(APP, _files(README="3"), trace="auto")
    assert evidence(third)[2:] == ["trace"] * 4


def test_each_step_can_have_its_own_mode(machine: Machine) -> None:
    """A function of the step's origin decides."""

    def mode(origin: object) -> str:
        return "off" if "sort req" in getattr(origin, "text", "") else "auto"

    machine.build(APP, _files(), trace=mode)
    again = machine.build(APP, _files(README="2"), trace=mode)
    assert evidence(again)[2:] == ["miss", "trace", "trace", "trace"]


def test_a_traced_hit_stays_one(machine: Machine) -> None:
    """No record is written under the whole parent for what was never run on it."""
    machine.build(APP, _files(), trace="auto")
    for _ in range(3):
        again = machine.build(APP, _files(README="2"), trace="auto")
        assert evidence(again)[2:] == ["trace"] * 4
    assert evidence(machine.build(APP, _files(README="2")))[2:] == ["miss"] * 4


# -- what the executor derives ------------------------------------------------------------------

USERS = """\
FROM base
COPY passwd /etc/passwd
USER extra
WORKDIR /home
RUN echo $HOME
"""


def test_who_runs_counts_as_a_value(machine: Machine) -> None:
    """Another line in /etc/passwd changes nothing for a step that only runs as a user; another
    number or home of that user does."""
    user = "extra:x:500:500::/home/extra:/bin/sh\n"
    machine.build(USERS, {"passwd": user}, trace="auto")
    more = machine.build(USERS, {"passwd": "x:x:9:9::/:/x\n" + user}, trace="auto")
    assert evidence(more)[-2:] == ["rebase", "trace"]
    other = machine.build(USERS, {"passwd": user.replace("500:500", "501:500")}, trace="auto")
    assert evidence(other)[-1] == "miss"
    reason = other.steps[-1].reason
    assert reason is not None
    assert reason.changes[0].path == "user extra"
    home = machine.build(USERS, {"passwd": user.replace("/extra:", "/e:")}, trace="auto")
    assert evidence(home)[-1] == "miss"


# -- refusals -----------------------------------------------------------------------------------


def _notes(machine: Machine) -> list[str]:
    return [event.message for event in machine.events if isinstance(event, Note)]


def test_a_cache_mount_is_a_reason_not_to_trace(machine: Machine) -> None:
    """It is said, by the build that ran the step and by later ones, and all is as without."""
    text = "FROM base\nCOPY . /w\nRUN --mount=type=cache,target=/c cat /w/req > /out\n"
    first = machine.build(text, _files(), trace="auto")
    assert any("cache mount" in note for note in _notes(machine))
    assert "cache mount" in (first.steps[-1].untraced or "")
    again = machine.build(text, _files(README="2"), trace="auto")
    assert evidence(again)[-1] == "miss"
    last = machine.build(text, _files(README="2"), trace="auto")
    assert evidence(last)[-1] == "content"
    assert "cache mount" in last.explain(2)
    assert last.to_dict()["steps"][-1]["untraced"] == last.steps[-1].untraced


MOUNTED = """\
FROM base
COPY . /w
RUN sh /w/links; chmod 777 /w
USER u
RUN --mount=type=bind,source=passwd,target={} id > /w/out; echo $HOME >> /w/out
"""


@pytest.mark.parametrize(
    ("target", "links", "later"),
    [
        ("/etc/passwd", "true", "true"),
        ("/e/passwd", "ln -s etc /e", "mkdir -p /e"),
        ("/usr/etc/passwd", "mkdir -p /usr/etc; mv /etc/passwd /usr/etc; "
         "ln -s ../usr/etc/passwd /etc", "mkdir -p /usr/etc; cp /etc/passwd /usr/etc"),
    ],
    ids=["there", "by a link", "behind a link"],
)  # fmt: skip
def test_a_mount_over_the_accounts_says_who_runs_the_command(
    machines: Callable[..., Machine], target: str, links: str, later: str
) -> None:
    """Whatever leads to it: as unwatched, and it counts where the accounts are."""
    machine, clean = machines(), machines()
    text = MOUNTED.format(target)
    user = "u:x:{0}:{0}::/{0}:/bin/sh\n"
    links, later = (f"echo {user.format(5)!r} > /etc/passwd; {more}" for more in (links, later))
    files = {"passwd": user.format(7), "links": links}
    _same(machine.build(text, files, trace="auto"), clean, text, files)
    again = machine.build(text, {**files, "noise": "1"}, trace="auto")
    assert evidence(again)[-1] == "trace"
    files["links"] = later
    _same(machine.build(text, files, trace="auto"), clean, text, files)


def test_a_step_that_fails_leaves_nothing(machine: Machine) -> None:
    """There is nothing to reuse, traced or not."""
    from layercache.errors import StepFailed

    text = "FROM base\nCOPY . /w\nRUN test -e /w/there\n"
    for _ in range(2):
        with pytest.raises(StepFailed):
            machine.build(text, {"a": "1"}, trace="auto")
    machine.build(text, {"there": "1"}, trace="auto")


@pytest.mark.parametrize(
    "patch",
    [
        "def no(*a, **k): raise OSError(2, 'No such file or directory', '/dev/fuse')\n"
        "t.mount_traced = no",
        "sys.exit(1)",
        "t.serve = lambda stream: None",
    ],
    ids=["no device", "does not start", "dies at once"],
)
def test_where_nothing_can_be_traced_all_is_as_without(
    machines: Callable[..., Machine], monkeypatch: pytest.MonkeyPatch, patch: str
) -> None:
    """A clear note, the ordinary key, the same result."""
    use_tracer(monkeypatch, patch)
    machine, clean = machines(), machines()
    result = machine.build(APP, _files(), trace="auto")
    assert any("not traced" in note for note in _notes(machine))
    _same(result, clean, APP, _files())
    again = machine.build(APP, _files(README="2"), trace="auto")
    assert evidence(again)[2:] == ["miss"] * 4
    assert evidence(machine.build(APP, _files(README="2"), trace="auto"))[2:] == ["content"] * 4


@pytest.mark.parametrize(
    "patch",
    [
        "def read(self, node, data): import os; os._exit(1)\nTraceFS._read = read",
        "def read(self, node, data): raise OSError(5, 'Input/output error')\nTraceFS._read = read",
        """\
lookup = TraceFS._lookup
def hide(self, node, data):
    if bytes(data[:-1]) == b'req':
        self.note(b'w/req', t.ABSENT)
        raise OSError(2, 'No such file or directory')
    return lookup(self, node, data)
TraceFS._lookup = hide
""",
    ],
    ids=["dies", "can't read", "says that nothing is there"],
)
def test_a_tracer_that_fails_takes_nothing_with_it(
    machines: Callable[..., Machine], monkeypatch: pytest.MonkeyPatch, patch: str
) -> None:
    """The step runs again, unwatched: wrong answers may have reached it, even if it ended well."""
    use_tracer(monkeypatch, patch)
    machine, clean = machines(), machines()
    text = "FROM base\nCOPY . /w\nRUN cat /w/req > /out || true\n"
    result = machine.build(text, _files(), trace="auto")
    assert "tracer" in (result.steps[-1].untraced or "")
    _same(result, clean, text, _files())


# -- audits -------------------------------------------------------------------------------------


def test_an_audit_of_a_steady_step_changes_nothing(machine: Machine) -> None:
    """Every hit is run again and found to be as recorded."""
    machine.build(APP, _files(), trace="auto")
    again = machine.build(APP, _files(README="2"), trace="audit=1")
    assert evidence(again)[2:] == ["trace"] * 4
    assert sum("gave the same" in note for note in _notes(machine)) == 4


CHANCE = """\
FROM base
COPY . /w
RUN cat /w/req > /steady
RUN head -c 8 /dev/urandom > /chance; cat /w/req > /read
RUN test -s /chance && echo yes > /there
"""


def test_an_audit_quarantines_what_comes_out_otherwise(machine: Machine) -> None:
    """It is reported; the step counts as executed, with the new result, and is not traced any
    more. Its neighbours stay as they are."""
    machine.build(CHANCE, _files(), trace="auto")
    again = machine.build(CHANCE, _files(README="2"), trace="audit=1")
    assert evidence(again) == ["miss", "trace", "miss", "trace"]
    reason = again.steps[3].reason
    assert reason is not None
    assert reason.cause == "audit"
    assert [change.path for change in reason.changes] == ["/chance"]
    troubles = [e for e in machine.events if isinstance(e, CacheTrouble)]
    assert any(e.kind == "audit" and "/chance" in e.message for e in troubles)
    third = machine.build(CHANCE, _files(README="3"), trace="auto")
    assert evidence(third) == ["miss", "trace", "miss", "trace"]
    assert "a new run gave a tree that differs" in (third.steps[3].untraced or "")
    same = machine.build(CHANCE, _files(README="2"), trace="auto")
    assert evidence(same) == ["content", "trace", "content", "trace"]
    assert snapshot(same.tree()) == snapshot(again.tree())


def test_a_share_of_none_runs_nothing_again(machine: Machine) -> None:
    """`audit=0` is `auto`; a share that is none is refused."""
    from layercache.errors import UsageError

    machine.build(CHANCE, _files(), trace="auto")
    again = machine.build(CHANCE, _files(README="2"), trace="audit=0")
    assert evidence(again) == ["miss", "trace", "trace", "trace"]
    for wrong in ("audit=2", "on", "audit=x"):
        with pytest.raises(UsageError):
            machine.build(CHANCE, _files(), trace=wrong)


def test_traces_serve_from_a_cache_at_a_distance(
    machines: Callable[..., Machine], tmp_path: Path
) -> None:
    """Selectors, sets, accounts and indexes go to a remote cache, and come from there; what two
    machines know of one step is put together."""
    from layercache.store.open import open_store

    remote = str(tmp_path / "remote")

    def machine(**options: Any) -> Machine:
        made = machines()
        made.builder = Builder(
            open_store(str(made.cache), durability="none", **options), executor=made.executor
        )
        return made

    one, two = machine(cache_to=[remote]), machine(cache_from=[remote], cache_to=[remote])
    one.build(APP, _files(), trace="auto")
    one.builder.store.close()
    again = two.build(APP, _files(README="2"), trace="auto")
    assert evidence(again) == ["content", "miss", "trace", "trace", "trace", "trace"]
    two.build(APP, _files(req="c\n"), trace="auto")
    two.builder.store.close()
    three = machine(cache_from=[remote])
    for files in (_files(README="3"), _files(README="3", req="c\n")):
        found = three.build(APP, files, trace="auto")
        assert evidence(found)[2:] == ["trace"] * 4
