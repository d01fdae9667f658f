"""Three views of a state agree: what the next command sees on the directory that was kept, on
one unpacked anew, and what the layers' indexes say.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from layercache.layers.state_tree import StateTree
from layercache.model.descriptors import State
from layercache.model.digests import ChainID

from .conftest import Bench

NAMES = ("/a", "/b", "/a/x", "/a/y", "/b/x", "/tmp/t", "/root", "/o/f", "/o/g", "/o/d", "/o/d/h")
NAME = st.sampled_from(NAMES)
OPERATION = st.one_of(
    # Writing to a FIFO would wait for a reader.
    st.builds("[ -p {0} ] || echo {1} > {0}".format, NAME, st.integers(0, 9)),
    st.builds("[ -p {0} ] || echo {1} >> {0}".format, NAME, st.integers(0, 9)),
    st.builds("mkdir -p {0}".format, NAME),
    st.builds("rm -rf {0}".format, NAME),
    st.builds("rmdir {0}".format, NAME),
    st.builds("mv {0} {1}".format, NAME, NAME),
    st.builds("cp -a {0} {1}".format, NAME, NAME),
    st.builds("ln -s {0} {1}".format, NAME, NAME),
    st.builds("ln {0} {1}".format, NAME, NAME),
    st.builds("chmod {1} {0}".format, NAME, st.sampled_from(["700", "644", "4755", "1777"])),
    st.builds("chown -h {1} {0}".format, NAME, st.sampled_from(["0:0", "1000:1001", "7"])),
    st.builds("mkfifo {0}".format, NAME),
    st.builds("touch -h -d @{1} {0}".format, NAME, st.integers(0, 2**31)),
    st.builds("rm -rf {0}; mkdir {0}; touch {0}/new".format, NAME),
)
STEPS = st.lists(st.lists(OPERATION, min_size=1, max_size=6), min_size=1, max_size=3)

LOOK = (
    "find / -xdev | grep -vE '^/(proc|sys|dev|etc)(/|$)' | while read -r path; do "
    "stat -c '%f %u %g %Y %h %n' \"$path\"; done"
)


def seen(bench: Bench, state: State) -> list[str]:
    """What a command sees of a state."""
    return sorted(bench.out(LOOK, state=state).splitlines())


def said(bench: Bench, state: State) -> list[str]:
    """What the indexes of the layers say of it, in the same form; link counts apart."""
    tree = bench.inputs.tree(state)
    assert isinstance(tree, StateTree)
    tree = tree.shown()

    def walk(path: bytes) -> Iterator[str]:
        node = tree.lookup(path)
        assert node is not None
        shown = "/" + os.fsdecode(path)
        if shown.split("/")[1] not in ("proc", "sys", "dev", "etc"):
            yield f"{node.mode:x} {node.uid} {node.gid} {node.mtime} {shown}"
        if stat.S_ISDIR(node.mode):
            for name in tree.children(path):
                yield from walk(path + b"/" + name if path else name)

    return sorted(walk(b""))


def without_counts(lines: list[str]) -> list[str]:
    fields = (line.split(" ", 5) for line in lines)
    return sorted(" ".join([*five[:4], five[5]]) for five in fields)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, busybox: bytes) -> Iterator[Bench]:
    """One bench for all examples."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    bench = Bench(Path(tmp_path_factory.mktemp("agreement")) / "s", busybox)
    old = (
        "mkdir -p /o/d; echo 1 > /o/f; ln /o/f /o/g; echo 2 > /o/d/h; chown 5:6 /o/d; chmod 1700 /o"
    )
    bench.base = bench.after(bench.sh(old))
    yield bench
    bench.executor.close()


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(STEPS)
def test_kept_unpacked_and_indexed_agree(shared: Bench, steps: list[list[str]]) -> None:
    """Whatever commands did, the state is one and the same from all sides."""
    state = shared.base
    for operations in steps:
        script = "".join(f"{operation} 2>/dev/null\n" for operation in operations) + "true\n"
        state = state.plus(shared.sh(script, state=state).layer)
    kept = seen(shared, state)
    shared.executor.prune()

    assert kept == seen(shared, state)
    assert said(shared, state) == without_counts(kept)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(STEPS)
def test_equal_histories_give_equal_layers(shared: Bench, steps: list[list[str]]) -> None:
    """The same commands on an unpacked state give the same bytes as on a kept one."""
    chains: list[ChainID] = []
    for _ in range(2):
        state = shared.base
        for operations in steps:
            script = "".join(f"{operation} 2>/dev/null\n" for operation in operations) + "true\n"
            state = state.plus(shared.sh(script, state=state).layer)
            if chains:
                shared.executor.prune()
        chains.append(state.chain_id)

    assert chains[0] == chains[1]
