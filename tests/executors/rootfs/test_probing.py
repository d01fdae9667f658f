"""Finding out what works, and the contract of executors."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from layercache.errors import UsageError
from layercache.executors.rootfs import RootfsExecutor, probe
from layercache.model.task import Executor

from .conftest import Bench, Window


def test_probing_finds_the_mode_and_leaves_nothing(tmp_path: Path, bench: Bench) -> None:
    """As root the mode is `root`, without reasons against it."""
    assert probe(tmp_path / "new") == ("root", ())
    assert list((tmp_path / "new").iterdir()) == []


def test_probing_needs_no_directory(bench: Bench) -> None:
    """Without a directory the one for temporary files is tried."""
    mode, reasons = probe()

    assert mode == "root"
    assert reasons == ()


def test_it_is_an_executor_and_says_what_it_is(tmp_path: Path) -> None:
    """Traits are known without anything being opened, and hold no path of this machine."""
    executor = RootfsExecutor(tmp_path / "s", rootless=False)
    traits = {field.label: field.value for field in executor.traits}

    assert isinstance(executor, Executor)
    assert traits["executor"] == "rootfs/3"
    assert str(traits["platform"]).startswith("linux/")
    assert traits["privileges"] == "root"
    assert not any(str(tmp_path) in str(value) for value in traits.values())
    assert not (tmp_path / "s").exists()
    executor.close()


def test_a_wrong_network_is_a_usage_error(tmp_path: Path) -> None:
    """Only what there is can be the default network."""
    with pytest.raises(UsageError, match="bridge"):
        RootfsExecutor(tmp_path, network="bridge")


def test_root_may_work_in_a_user_namespace(
    make_bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`rootless=True` as root: a user namespace whose root is root."""
    monkeypatch.setenv("PATH", os.path.dirname(os.path.realpath("/bin/sh")) + "/nowhere")
    bench = make_bench(rootless=True)
    result = bench.sh("cat /proc/self/uid_map; touch /x; rm /bin/wc")

    assert result.output.split() == [b"0", b"0", b"1"]
    assert set(bench.entries(result)) == {"x", "bin/wc"}


def test_other_instructions_are_refused(bench: Bench) -> None:
    """What the executor does not know is never passed over."""
    import attrs

    @attrs.frozen
    class Odd:
        name = "ODD"

        def definition(self) -> tuple[()]:
            return ()

    with pytest.raises(UsageError, match="does not know ODD"):
        bench.executor.execute(attrs.evolve(bench.task("true"), instruction=Odd()), Window(bench))


def test_copies_are_made_like_every_executor_s(bench: Bench) -> None:
    """COPY and WORKDIR need nothing unpacked or mounted."""
    import attrs

    from layercache.model.operations import MakeDirectory

    task = attrs.evolve(bench.task("true"), instruction=MakeDirectory(path="/made"))
    result = bench.executor.execute(task, Window(bench))

    assert set(bench.entries(result)) == {"made"}
    assert not bench.directory.exists()
