"""What a step leaves as a layer, and what the next one finds."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from layercache.model.descriptors import Layer
from layercache.model.digests import DiffID
from layercache.model.layer_times import LAYER_TIME
from layercache.model.logical_clock import STRIDE
from layercache.testing.images import tar_of

from .conftest import Bench

CHANGES = (
    "rm /bin/wc; rm -r /root; mkdir /root; echo x > /etc/passwd.new; chmod 700 /etc; "
    "ln -s x /l; ln /l2 /l3 2>/dev/null; echo h > /h1; ln /h1 /h2; mkfifo /p; "
    "mkdir -p /d/e/f; touch /d/e/f/g; chown 1000:1001 /d/e; chmod 1777 /d; "
    "mv /tmp /tmp2; mknod /n c 5 6; cp -p /bin/busybox /bin/copy; truncate -s 1M /sparse"
)

LIST = (
    "find / -xdev | grep -vE '^/(proc|sys|dev|etc/(hosts|hostname|resolv.conf))' | sort | "
    "while read -r path; do stat -c '%n %f %u %g %Y %h' \"$path\"; done; "
    "md5sum /h2 /sparse /bin/copy"
)


def test_nothing_changed_is_no_layer(bench: Bench) -> None:
    """A command that writes nothing, or only where nothing is kept, has no layer."""
    for script in (
        "true",
        "ls -R / > /dev/null 2>&1 || true",
        "echo x > /dev/shm/x",
        "echo > /dev/x; true",
    ):
        assert bench.sh(script).layer is None


def test_what_is_made_and_undone_is_no_layer(bench: Bench) -> None:
    """Files that come and go within a step leave nothing behind but the time of a directory,
    which looks as if it had been touched; the root has none."""
    assert bench.sh("touch /x; mkdir /q; rm /x; rmdir /q").layer is None
    entries = bench.entries(bench.sh("touch /tmp/x; rm /tmp/x"))
    assert set(entries) == {"tmp"}
    assert entries["tmp"] is not None
    assert entries["tmp"].mtime == LAYER_TIME


def test_entries_are_what_changed_and_nothing_else(bench: Bench) -> None:
    """New, changed and deleted paths are in the layer; directories above them are not."""
    result = bench.sh("echo x > /tmp/x; rm /bin/wc; chmod 600 /etc/group")
    entries = bench.entries(result)

    assert set(entries) == {"tmp/x", "bin/wc", "etc/group"}
    assert entries["bin/wc"] is None


def test_times_are_a_function_of_the_build_alone(bench: Bench) -> None:
    """What a command writes is clamped in the layer; the next command sees when it came about."""
    result = bench.sh("touch /now; touch -d '2001-01-01 00:00' /then")
    nodes = bench.entries(result)
    state = bench.after(result)

    assert nodes["now"] is not None
    assert nodes["now"].mtime == LAYER_TIME
    assert bench.out("stat -c %Y /now", state=state) == f"{LAYER_TIME + 2 * STRIDE}\n"


def test_equal_steps_give_equal_bytes(make_bench: Callable[..., Bench]) -> None:
    """Two builders, one layer: to the byte."""
    digests = {make_bench().sh(CHANGES).layer for _ in range(2)}

    assert len(digests) == 1


def test_a_kept_directory_equals_an_unpacked_one(
    make_bench: Callable[..., Bench], tmp_path: Path
) -> None:
    """The next step sees the same whether the layer was just made here or comes from the store."""
    bench = make_bench()
    state = bench.after(bench.sh(CHANGES))
    state = bench.after(
        bench.sh("rm -r /d/e; mkdir /d/e; rm /h1; touch /tmp2/y", state=state), state
    )
    here = bench.out(LIST, state=state)
    bench.executor.close()
    shutil.rmtree(bench.directory / "unpacked")
    there = bench.out(LIST, state=state)

    assert here == there
    assert "/d/e/f" not in here


def test_layers_below_decide_what_a_directory_is(make_bench: Callable[..., Bench]) -> None:
    """A layer without an entry for a directory leaves its mode and owner to the layers below."""
    bench = make_bench()
    over = tar_of({"data/new": b"x"})
    for mode, owner in ((0o700, 7), (0o755, 8), (0o1777, 0)):
        made = bench.sh(f"mkdir -m {mode:o} /data; chown {owner}:{owner} /data")
        state = bench.layer(over, bench.after(made))
        out = bench.out("stat -c '%a %u %g' /data; ls /data", state=state)

        assert out == f"{mode:o} {owner} {owner}\nnew\n"


def test_the_root_directory_itself(bench: Bench) -> None:
    """The mode of / is kept from layer to layer, and a change of it is a layer."""
    result = bench.sh("chmod 711 /")
    state = bench.after(result)

    assert bench.out("stat -c %a /", state=state) == "711\n"
    state = bench.after(bench.sh("touch /x", state=state), state)
    assert bench.out("stat -c %a /", state=state) == "711\n"
    assert bench.sh("true", state=state).layer is None


def test_hard_links_permissions_and_owners_survive(bench: Bench) -> None:
    """What the next step sees is what this one left."""
    state = bench.after(bench.sh("touch /a; ln /a /b; chown 5:6 /a; chmod 4711 /a; mkfifo /p"))
    out = bench.out("stat -c '%a %u %g %h %F' /a /b /p", state=state)

    assert out == "4711 5 6 2 regular empty file\n" * 2 + "644 0 0 1 fifo\n"


def test_sockets_are_in_no_layer(bench: Bench) -> None:
    """A socket is dropped, and the next step doesn't see it either."""
    result = bench.sh(
        "touch /x; (nc -l -U /sock 2>/dev/null || nc -lU /sock 2>/dev/null) & sleep 0.1"
    )

    assert "sock" not in bench.entries(result)


def test_a_long_chain_of_layers(bench: Bench) -> None:
    """More layers than one overlay should have: the lowest are put together."""
    state = bench.base
    for number in range(230):
        content = {f"f{number}": str(number).encode(), "top": str(number).encode()}
        state = bench.layer(tar_of(content), state)
        if number == 5:
            state = bench.after(bench.sh("rm /f1 /f2; chmod 700 /root", state=state), state)
    result = bench.sh(
        "ls / | grep -c '^f'; cat /top; ls -d /f1; stat -c %a /root; rm /f3; true", state=state
    )

    assert result.output == b"228\n229ls: /f1: No such file or directory\n700\n"
    assert set(bench.entries(result)) == {"f3"}


def test_a_long_chain_shows_the_link_counts_of_a_short_one(bench: Bench) -> None:
    """Names that later layers remove or replace still count, as in an overlay of the layers."""
    state = bench.after(
        bench.sh("mkdir /d; echo 1 >/a; ln /a /b; ln /a /c; ln /a /d/e"), bench.base
    )
    state = bench.after(bench.sh("rm /b; rm -r /d", state=state), state)
    state = bench.layer(tar_of({"c": b"new"}), state)
    script = "stat -c %h /a /c"
    short = bench.sh(script, state=state).output
    for number in range(130):
        state = bench.layer(tar_of({f"f{number}": b""}), state)

    assert short == b"4\n1\n"
    assert bench.sh(script, state=state).output == short


@pytest.mark.parametrize("method", ["fd", "path", "mount"])
def test_every_way_to_name_layers_to_the_kernel(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Older kernels take paths, or one option string; the result is the same."""
    from layercache.executors.rootfs import helper_client as runner

    monkeypatch.setattr(runner, "METHODS", (method,))
    state = bench.base
    for number in range(99):
        state = bench.layer(tar_of({f"f{number}": b"x"}), state)
    result = bench.sh("ls / | grep -c '^f'; rm /f7; touch /new", state=state)

    assert result.output == b"99\n"
    assert set(bench.entries(result)) == {"f7", "new"}


def test_compressed_layers(bench: Bench) -> None:
    """Layers of a base image may be stored compressed."""
    import gzip
    import io

    from layercache.model.descriptors import LAYER_TAR_GZIP
    from layercache.model.digests import sha256

    tar = tar_of({"zipped": b"yes\n"})
    descriptor = bench.store.blobs.add(io.BytesIO(gzip.compress(tar)), LAYER_TAR_GZIP)
    state = bench.base.plus(Layer(descriptor, DiffID(sha256(tar))))

    assert bench.out("cat /zipped", state=state) == "yes\n"


def test_damaged_unpacked_layers_are_not_used(bench: Bench) -> None:
    """A directory without its mark, or of another boot, is unpacked again."""
    state = bench.after(bench.sh("echo good > /x"))
    bench.executor.close()
    places = sorted((bench.directory / "unpacked").iterdir())
    for place, mark in zip(places, ("", None, "boot of another time"), strict=False):
        for file in (place / "fs").rglob("x"):
            file.write_text("torn")
        if mark is None:
            (place / "state").unlink()
        else:
            (place / "state").write_text(mark)
    (places[-1] / "state").unlink(missing_ok=True)
    (places[-1] / "state").mkdir()
    for place in places:
        (place / "fs" / "junk").write_text("torn")
        if (place / "state").is_file():
            (place / "state").write_text("boot 0")

    assert bench.out("cat /x; ls /junk 2>&1 || true", state=state).startswith("good\nls: /junk")


def test_unpacked_layers_stay_for_the_next_build(bench: Bench) -> None:
    """In the same boot an unpacked layer is used again, not unpacked."""
    state = bench.after(bench.sh("echo good > /x"))
    bench.executor.close()
    places = {p.name: os.stat(p / "fs").st_ino for p in (bench.directory / "unpacked").iterdir()}
    bench.out("cat /x", state=state)
    after = {p.name: os.stat(p / "fs").st_ino for p in (bench.directory / "unpacked").iterdir()}

    assert places == after


def test_durable_layers_outlast_a_boot(make_bench: Callable[..., Bench]) -> None:
    """With `durable` layers are synced at the end and marked so."""
    bench = make_bench(durable=True)
    bench.sh("echo good > /x")
    bench.executor.close()

    marks = {(p / "state").read_text() for p in (bench.directory / "unpacked").iterdir()}
    assert marks == {"root synced"}


def test_a_hit_unpacks_nothing(bench: Bench) -> None:
    """Opening an executor and asking for traits touches no layer."""
    assert bench.executor.traits
    assert not (bench.directory / "unpacked").exists()


def test_lost_blobs_are_the_store_s_errors(bench: Bench) -> None:
    """A layer whose bytes are gone raises the cache's error, for the engine to heal."""
    from layercache.errors import NotFound
    from layercache.model.descriptors import Descriptor
    from layercache.model.digests import Digest

    gone = Digest("sha256:" + "0" * 64)
    layer = Layer(Descriptor("application/vnd.oci.image.layer.v1.tar", gone, 10), DiffID(gone))
    with pytest.raises(NotFound):
        bench.run("true", state=bench.base.plus(layer))
    assert bench.run("true").layer is None


def test_a_renamed_directory_hides_nothing_elsewhere(make_bench: Callable[..., Bench]) -> None:
    """Overlayfs marks a new directory that was renamed; on other layers the mark would show."""
    for again in (False, True):
        bench = make_bench()
        result = bench.sh("mkdir /new; touch /new/a; mv /new /moved")
        assert result.layer is not None
        assert set(bench.entries(result)) == {"moved", "moved/a"}
        if again:
            bench.executor.prune()
        other = bench.layer(tar_of({"moved/b": b"x"}), bench.base).plus(result.layer)

        assert bench.out("ls /moved", state=other) == "a\nb\n"


def test_needless_deletions_are_not_seen(bench: Bench) -> None:
    """A deletion of what isn't there leaves no trace, whatever layer it comes on top of."""
    state = bench.layer(tar_of({".wh.gone": b"", "tmp/.wh.gone": b""}), bench.base)
    out = bench.out("ls -a / /tmp | grep -c gone || true", state=state)
    with_it = bench.layer(tar_of({"gone": b"x"}), bench.base)
    layer = state.layer
    assert layer is not None

    assert out == "0\n"
    assert bench.out("ls /gone 2>&1 || true", state=with_it.plus(layer)).startswith("ls: /gone")


def test_the_umask_of_the_builder_changes_nothing(make_bench: Callable[..., Bench]) -> None:
    """A builder with a strict umask makes the same root directory and the same layers."""
    script = "stat -c %a / /etc /dev /proc; mkdir /d; touch /f; stat -c %a /d /f"
    old = os.umask(0o077)
    try:
        result = make_bench().sh(script)
    finally:
        os.umask(old)

    assert result.output == b"755\n755\n755\n555\n755\n644\n"
    assert result.layer == make_bench().sh(script).layer
