"""Checks that run as an ordinary user, in a process of their own.

    python -m tests.executors.rootfs.rootless_build NAME SCRATCH

`NAME` is a function below; it fails by an exception.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from layercache.errors import BuildError, StepFailed
from layercache.executors.rootfs import probe
from layercache.model.operations import Mount
from layercache.testing.images import busybox_layer, tar_of
from layercache.trees.in_memory import DictTree

from .conftest import Bench, files
from .test_lower_links import LOOK, SEEN, base_with_lower_links


def expect(expected: object, actual: object) -> None:
    """Like `assert`, and also shown without pytest."""
    if expected != actual:
        raise AssertionError(f"expected {expected!r}, got {actual!r}")


def mode_range(bench: Bench) -> None:
    """With a range the mode is `rootless`; the trait says so."""
    expect("rootless", probe(bench.directory).mode)
    expect("user namespace", {f.label: f.value for f in bench.executor.traits}["privileges"])


def mode_single(bench: Bench) -> None:
    """Without newuidmap there is one user, and the reasons say why."""
    found = probe(bench.directory)
    expect("rootless-single", found.mode)
    expect(True, any("newuidmap" in reason for reason in found.reasons))


def commands(bench: Bench) -> None:
    """Commands run as root of the image, write, delete, replace; layers are as root's."""
    script = (
        "id -u; rm /bin/wc; rm -r /root; mkdir /root; touch /root/new; echo x > /x; "
        "mkdir -p /a/b; chmod 700 /a; ln /x /y; ln -s x /l; mkfifo /p"
    )
    result = bench.sh(script)
    expect(b"0\n", result.output)
    entries = bench.entries(result)
    expect({"a", "a/b", "bin/wc", "root/new", "x", "y", "l", "p"}, set(entries))
    expect({(0, 0)}, {(n.uid, n.gid) for n in entries.values() if n})
    state = bench.after(result)
    expect("x\nroot/new\n700\n", bench.out("cat /y; cd /; ls root/*; stat -c %a /a", state=state))
    expect(True, bench.executor.prune() > 0)
    expect("x\nroot/new\n700\n", bench.out("cat /y; cd /; ls root/*; stat -c %a /a", state=state))


def opaque(bench: Bench) -> None:
    """A directory that was deleted and made again hides what was in it, after unpacking too."""
    first = bench.after(bench.sh("mkdir -p /d/e; touch /d/e/old /d/old"))
    result = bench.sh("rm -r /d; mkdir /d; touch /d/new", state=first)
    state = bench.after(result, first)
    expect("new\n", bench.out("ls /d", state=state))
    expect(True, bench.executor.prune() > 0)
    expect("new\n", bench.out("ls /d", state=state))


def owners(bench: Bench) -> None:
    """Users and owners of the range work, across layers and unpacking, setuid bits too."""
    result = bench.sh(
        "touch /f; chown app:other /f; chmod 4755 /f; mkdir -p /home/app; chown app /home/app"
    )
    state = bench.after(result)
    look = "stat -c '%u %g %a' /f /home/app"
    expect("1000 1001 4755\n1000 0 755\n", bench.out(look, state=state))
    expect("1000\n", bench.out("id -u; touch /home/app/x", state=state, user="app"))
    expect(True, bench.executor.prune() > 0)
    expect("1000 1001 4755\n1000 0 755\n", bench.out(look, state=state))
    further = bench.sh("echo y > /home/app/y", state=state, user="app")
    expect({"home/app/y"}, set(bench.entries(further)))


def far_owners(bench: Bench) -> None:
    """What lies outside the range is an error that says so, not another owner."""
    try:
        bench.run("true", user="4000000")
    except StepFailed as error:
        expect(True, "range" in str(error))
    else:
        raise AssertionError("no error")


def single_owners(bench: Bench) -> None:
    """With one user, files of others look like root's, and keep their owners in layers."""
    state = bench.layer(tar_of({"home/app/f": b"1"}), bench.base)
    node = bench.inputs.tree(state).lookup(b"home/app/f")
    assert node is not None
    result = bench.sh(
        "stat -c %u /home/app/f; echo 2 > /home/app/f; touch /home/app/g", state=state
    )
    expect(b"0\n", result.output)
    expect({"home/app/f", "home/app/g"}, set(bench.entries(result)))
    try:
        bench.run("true", user="app")
    except StepFailed as error:
        expect(True, "newuidmap" in str(error))
    else:
        raise AssertionError("no error")
    for script, hinted in (("touch /x; chown app /x", True), ("exit 3", False)):
        try:
            bench.sh(script)
        except StepFailed as error:
            expect(hinted, "newuidmap" in str(error))
        else:
            raise AssertionError("no error")


def foreign_owners_stay(bench: Bench) -> None:
    """A file of app's that root of a one-user namespace changes stays app's in the layer."""
    import io
    import tarfile

    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, kind in (("data", tarfile.DIRTYPE), ("data/f", tarfile.REGTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.uid, info.gid = kind, 0o755, 1000, 1001
            archive.addfile(info)
    state = bench.layer(out.getvalue(), bench.base)
    result = bench.sh("echo x >> /data/f; touch /data/g", state=state)
    nodes = bench.entries(result)
    expect(
        {"data/f": (1000, 1001), "data/g": (0, 0)},
        {p: (n.uid, n.gid) for p, n in nodes.items() if n},
    )


def mounts(bench: Bench) -> None:
    """Contexts, stages, caches, tmpfs and secrets are mounted as for root."""
    given = bench.context(DictTree({"a/f": "1\n"}), files("a"), "mount /m")
    stage = bench.after(bench.sh("mkdir /o; echo 2 > /o/f"))
    other = bench.stage(stage, files("o"), "mount /s")
    result = bench.sh(
        "cat /m/f /s/f; echo x >> /c/log; wc -l < /c/log; touch /t/x; cat /run/secrets/s | wc -c",
        inputs=(given, other),
        mounts=(
            Mount(type="bind", target="/m", role="mount /m", source="a"),
            Mount(type="bind", target="/s", role="mount /s", source="/o"),
            Mount(type="cache", target="/c", readonly=False, mode=0o755),
            Mount(type="tmpfs", target="/t"),
            Mount(type="secret", target="/run/secrets/s", id="s", mode=0o400),
        ),
    )
    expect(b"1\n2\n1\n4\n", result.output)
    expect(None, result.layer)


def cache_owners(bench: Bench) -> None:
    """A cache can belong to a user of the range, also when it begins with a stage's files."""
    cache = Mount(type="cache", target="/c", readonly=False, mode=0o700, uid=1000, gid=1001)
    expect(
        "700 1000 1001\n",
        bench.out("touch /c/x; stat -c '%a %u %g' /c", mounts=(cache,), user="app"),
    )
    stage = bench.after(bench.sh("mkdir /o; echo 2 > /o/f; chown app /o/f"))
    given = bench.stage(stage, files("o"), "mount /d")
    seeded = Mount(type="cache", target="/d", readonly=False, role="mount /d", source="/o")
    expect("1000\n", bench.out("stat -c %u /d/f", inputs=(given,), mounts=(seeded,)))


def clean(bench: Bench) -> None:
    """What a step left unreadable, or of other users, is deleted all the same."""
    try:
        bench.sh("mkdir -p /d/e; touch /d/e/f; chown 1000 /d /d/e || true; chmod 0 /d/e /d; false")
    except StepFailed:
        pass
    bench.executor.close()
    for name in ("work", "inputs", "trash"):
        expect([], os.listdir(bench.directory / name))


def no_network(bench: Bench) -> None:
    """`none` works: the network namespace is the user namespace's own."""
    out = bench.out(
        "ls /sys/class/net; ping -c 1 -W 1 127.0.0.1 > /dev/null && echo up", network="none"
    )
    expect(["lo", "up"], out.split())


def isolation(bench: Bench) -> None:
    """Root of the image is nobody on the host."""
    Path(bench.directory.parent / "mine").write_text("mine")
    for attempt in (
        "cat /proc/1/environ | grep .",
        "ls /proc/1/root/",
        "mount -t tmpfs none /tmp",
        "echo 1 > /proc/sys/kernel/core_pattern",
        "mknod /tmp/d b 8 0",
    ):
        try:
            bench.sh(attempt)
        except StepFailed:
            continue
        raise AssertionError(attempt)


def layers_are_root_s(bench: Bench) -> None:
    """The same step gives the same bytes in any mode that can do it."""
    result = bench.sh("rm /bin/wc; mkdir -p /a/b; echo x > /a/b/c; chmod 750 /a")
    assert result.layer is not None
    print(result.layer.diff_id)


def long_chain(bench: Bench) -> None:
    """Many layers are put together in the user namespace as well."""
    state = bench.after(bench.sh("echo 1 >/a; ln /a /b"), bench.base)
    state = bench.after(bench.sh("rm /b", state=state), state)
    for number in range(120):
        state = bench.layer(tar_of({f"f{number}": b"x"}), state)
    expect("120\n2\n", bench.out("ls / | grep -c '^f[0-9]'; stat -c %h /a", state=state))


def lower_links(bench: Bench) -> None:
    """Files that a layer of the base image has from lower ones, in overlays and put together."""
    state = base_with_lower_links(bench)
    expect(SEEN.replace(" 7 ", owner_of_seven(bench)), bench.out(LOOK, state=state))
    for number in range(110):
        state = bench.layer(tar_of({f"f{number}": b"x"}), state)
    expect(SEEN.replace(" 7 ", owner_of_seven(bench)), bench.out(LOOK, state=state))


def owner_of_seven(bench: Bench) -> str:
    """How user 7's files look: with one user only, as root's."""
    return " 0 " if probe(bench.directory).mode == "rootless-single" else " 7 "


def bad_image(bench: Bench) -> None:
    """A layer that can't be unpacked is an error of the build, and the agent lives on."""
    deep = "/".join(["d" * 250] * 15)
    state = bench.layer(tar_of({deep: b"x"}), bench.base)
    try:
        bench.run("true", state=state)
    except BuildError:
        pass
    expect("ok\n", bench.out("echo ok"))


def main() -> None:
    layer = busybox_layer()
    assert layer is not None
    bench = Bench(Path(sys.argv[2]), layer, secrets={"s": b"key\n"})
    try:
        globals()[sys.argv[1]](bench)
    finally:
        bench.executor.close()


if __name__ == "__main__":
    main()
