"""Hard links of a base image's layer to files of lower layers, as steps see them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from layercache._os.allowance import UnpackAllowance
from layercache.builds.builder import Builder
from layercache.cli import main
from layercache.dockerfile.recipe import Dockerfile
from layercache.errors import HostileArchive
from layercache.executors.rootfs import RootfsExecutor
from layercache.model.descriptors import State
from layercache.model.task import Executor
from layercache.testing.archives import archive, entry
from layercache.testing.images import make_layout, tar_of
from layercache.testing.memory import snapshot

from .conftest import Bench, Window

__all__ = ["LOOK", "SEEN", "base_with_lower_links"]

LOWER = archive(
    entry(b"one", b"lower one", mode=b"0004755", uid=7),
    entry(b"other", b"lower other", mtime=b"14000000000"),
    entry(b"gone", b"gone"),
    entry(b"soft", kind=b"2", link=b"one"),
    entry(b"usr/lib/x", b"lower x"),
    entry(b"lib", kind=b"2", link=b"/usr/lib"),
)

UPPER = archive(
    entry(b"n", kind=b"1", link=b"one"),
    entry(b"m", kind=b"1", link=b"one"),
    entry(b"w", kind=b"1", link=b"gone"),
    entry(b".wh.gone"),
    entry(b"s", kind=b"1", link=b"soft"),
    entry(b"x", kind=b"1", link=b"lib/x"),
    entry(b"o", kind=b"1", link=b"other"),
    entry(b"own", b"own"),
    entry(b"own2", kind=b"1", link=b"own"),
)

LOOK = (
    "cat /n /m /w /x /o /own2 /s; echo; stat -c '%n %f %u %h' /one /n /w /own2 /usr/lib/x; "
    "[ /n -ef /one ] && [ /x -ef /usr/lib/x ] && [ ! -e /gone ] && readlink /s; "
    "stat -c %Y /o /other | uniq | wc -l"
)

SEEN = (
    "lower onelower onegonelower xlower otherownlower one\n"
    "/one 89ed 7 3\n/n 89ed 7 3\n/w 81a4 0 1\n/own2 81a4 0 2\n/usr/lib/x 81a4 0 2\n"
    "one\n1\n"
)


def base_with_lower_links(bench: Bench) -> State:
    """The base state with both layers."""
    return bench.layer(UPPER, bench.layer(LOWER, bench.base))


def test_commands_see_the_files(bench: Bench) -> None:
    """With their contents, modes, owners, link counts and times."""
    assert bench.out(LOOK, state=base_with_lower_links(bench)) == SEEN


def test_another_lower_layer_gives_other_files(bench: Bench) -> None:
    """The unpacked copy of one and the same layer depends on what is below."""
    first = base_with_lower_links(bench)
    changed = LOWER.replace(b"lower one", b"other one")
    second = bench.layer(UPPER, bench.layer(changed, bench.base))
    assert bench.out("cat /n", state=first) == "lower one"
    assert bench.out("cat /n", state=second) == "other one"
    assert bench.out("cat /n", state=first) == "lower one"


def test_a_step_writes_through_one_name(bench: Bench) -> None:
    """As for any file with several names, in what follows too."""
    state = base_with_lower_links(bench)
    result = bench.sh("echo new > /n; rm /m; chmod 600 /x", state=state)
    after = bench.after(result, state)
    assert bench.out("cat /n; stat -c %a /x; ls /m || true", state=after).startswith("new\n600\n")
    assert bench.executor.prune() > 0
    assert bench.out("cat /n; stat -c %a /x", state=after) == "new\n600\n"


def test_a_long_chain_is_put_together(bench: Bench) -> None:
    """More layers than an overlay takes are applied to one directory."""
    state = base_with_lower_links(bench)
    for number in range(110):
        state = bench.layer(tar_of({f"f{number}": b"x"}), state)
    assert bench.out(LOOK, state=state) == SEEN


def test_borrowed_bytes_count_as_unpacked(bench: Bench) -> None:
    """Many small layers with names of one big file can't fill the disk."""

    class Bounded(Window):
        allowance = UnpackAllowance(3000)

    big = bench.layer(archive(entry(b"big", b"x" * 2000)), bench.base)
    state = bench.layer(archive(entry(b"n1", kind=b"1", link=b"big")), big)
    assert bench.run("cat", "/n1", state=state, window=Bounded(bench)).output == b"x" * 2000
    state = bench.layer(archive(entry(b"n2", kind=b"1", link=b"big")), state)
    with pytest.raises(HostileArchive, match="--max-unpacked-size"):
        bench.run("cat", "/n2", state=state, window=Bounded(bench))


def test_builds_copy_trace_and_verify_it(tmp_path: Path, busybox: bytes) -> None:
    """COPY --from, a traced RUN that is reused on a changed image, a plain directory of commands,
    and `cache verify`; another lower file gives another result."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    text = "FROM base AS b\nRUN cat /n > /seen\nFROM scratch\nCOPY --from=b /n /x /seen /\n"

    def build(lower: bytes, executor: Executor) -> dict[str, bytes]:
        layout = tmp_path / "layout"
        make_layout(layout, [busybox, lower, UPPER], {"Env": ["PATH=/bin"]})
        builder = Builder(tmp_path / "cache", executor=executor)
        result = builder.build(
            Dockerfile.parse(text), contexts={"base": f"oci-layout://{layout}"}, trace="auto"
        )
        decisions.append([step.decision for step in result.steps if step.op == "RUN"])
        return {path: entry.content for path, entry in snapshot(result.tree()).items()}

    decisions: list[object] = []
    more = LOWER.replace(b"lower other", b"other other")
    changed = LOWER.replace(b"lower one", b"other one")
    with RootfsExecutor(tmp_path / "cache" / "rootfs") as executor:
        found = build(LOWER, executor)
        assert (found["n"], found["seen"], found["x"]) == (b"lower one", b"lower one", b"lower x")
        assert build(more, executor) == found
        again = build(changed, executor)
        assert (again["n"], again["seen"], again["x"]) == (b"other one", b"other one", b"lower x")
    assert decisions == [["miss"], ["hit"], ["miss"]]
    assert main(["cache", "verify", "--cache", str(tmp_path / "cache")]) == 0


def test_a_link_to_nothing_names_layer_and_entry(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    state = bench.layer(archive(entry(b"n", kind=b"1", link=b"nothing")), bench.base)
    with pytest.raises(HostileArchive, match=r"layer 2 of 2: entry 'n'.*'nothing'"):
        bench.sh("true", state=state)
