"""Mounts of a step: what a hostile image, recipe or command can do with them, and what it sees.

Each attempt reads where an attacker would write, and acts on nothing but what it made itself.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from layercache.executors.rootfs.inside import system_mounts
from layercache.executors.rootfs.inside.image_root import Root
from layercache.model.layer_times import LAYER_TIME

from .conftest import Probe

LINKED: dict[str, dict[str, str]] = {
    "proc to a directory": {"proc": "fake", "fake/": ""},
    "sys to a directory": {"sys": "fake", "fake/": ""},
    "dev to a directory": {"dev": "fake", "fake/": ""},
    "proc to itself": {"proc": "proc"},
    "proc to the root": {"proc": "/"},
    "proc upwards": {"proc": "../../../../proc"},
    "sys to proc": {"sys": "proc"},
    "dev to proc": {"dev": "/proc/self/fd"},
    "dev to a process": {"dev": "/proc/1/root/dev"},
    "sys to a dangling path": {"sys": "nowhere/at/all"},
    "links that lead through each other": {
        "sys": "l",
        "l/kernel": "../a/b/c",
        "a/b/c/": "",
        "proc": "l/kernel/../../fake",
        "fake/sys/kernel/": "",
    },
    "proc as a file": {"proc": "=text"},
    "sys as a file": {"sys": "=text"},
    "dev as a file": {"dev": "=text"},
}
"""Images whose /proc, /sys or /dev is something else; `=` begins a file's text."""


@pytest.mark.parametrize("links", LINKED.values(), ids=LINKED)
def test_linked_system_directories_are_refused(probe: Probe, links: dict[str, str]) -> None:
    """An image whose /proc, /sys or /dev is no directory runs no command, and is told so."""
    said = probe("refused", json.dumps(links), "true", "[]")
    assert "is a link or a file, not a directory" in said


TARGETS = (
    "/proc", "/sys", "/dev", "/proc/", "//proc", "/./dev", "/a/../sys", "/proc/sys/kernel",
    "/sys/firmware", "/sys/fs/cgroup", "/dev/null", "/dev/shm", "/dev/pts/0", "/proc/self/fd/3",
    "/dev/pipes/x", "/proc/acpi", "/dev/new",
)  # fmt: skip


@pytest.mark.parametrize("kind", ["tmpfs", "secret", "cache"])
def test_mounts_at_system_directories_are_refused(probe: Probe, kind: str) -> None:
    """`--mount` at or below /proc, /sys and /dev is refused, however it is written."""
    # A tmpfs at /dev/shm only says how large the one is that is there anyway.
    targets = [target for target in TARGETS if (kind, target) != ("tmpfs", "/dev/shm")]
    asked = [{"type": kind, "target": target, "id": "s"} for target in targets]
    for target, said in zip(targets, json.loads(probe("refusals", json.dumps(asked))), strict=True):
        assert "and each step has its own" in said, (target, said)


BEHIND_LINKS: dict[str, tuple[dict[str, str], str]] = {
    "a link to /proc": ({"l": "/proc"}, "/l"),
    "a link below /proc": ({"l": "/proc/sys"}, "/l/kernel"),
    "a link upwards": ({"d/l": "../../../proc/sys"}, "/d/l/kernel"),
    "a link to /dev": ({"l": "dev"}, "/l/shm"),
    "a link to a device": ({"l": "/dev/null"}, "/l"),
    "a link to /sys": ({"l": "m", "m": "sys"}, "/l/firmware"),
    "a link to what is not in /dev": ({"l": "/dev/new"}, "/l"),
    "a link to what is not in /proc": ({"l": "/proc/new/deep"}, "/l"),
    "a link of /proc": ({"l": "/proc/self/fd"}, "/l/3"),
    "a link of a process": ({"l": "/proc/self/root"}, "/l/x"),
    "a link to a process's directory": ({"l": "/proc/self/cwd"}, "/l/x"),
    "a loop": ({"l": "m", "m": "l"}, "/l/x"),
    "up from nothing": ({"l": "none/../../x"}, "/l/y"),
    "a file on the way": ({"f": "=text"}, "/f/x"),
    "links without end": ({f"l{n}": f"l{n + 1}/x" for n in range(60)}, "/l0"),
}


@pytest.mark.parametrize(("links", "target"), BEHIND_LINKS.values(), ids=BEHIND_LINKS)
def test_mounts_that_links_lead_astray_are_refused(
    probe: Probe, links: dict[str, str], target: str
) -> None:
    """Where links of the image lead a mount to /proc, /sys, /dev or nowhere, the step says so."""
    mounts = json.dumps([{"type": "tmpfs", "target": target}])
    said = probe("refused", json.dumps(links), "true", mounts)
    assert target in said
    assert "can't be made in the image" in said or "nothing can be mounted at" in said


@pytest.mark.parametrize("name", ["hosts", "hostname", "resolv.conf"])
@pytest.mark.parametrize("where", ["/dev/null", "/proc/self/environ", "/sys/kernel/x", "/dev"])
def test_files_of_etc_that_links_lead_astray_are_refused(
    probe: Probe, name: str, where: str
) -> None:
    """The engine's own mounts are bound by the same rule: a link in /etc can't move them there."""
    said = probe("refused", json.dumps({f"etc/{name}": where}), "true", "[]")
    assert f"/etc/{name}" in said


def test_a_link_to_what_is_not_there_is_followed(probe: Probe) -> None:
    """As with runc: what it leads to is made, within the image, and is gone afterwards."""
    links = json.dumps({"etc/resolv.conf": "../run/resolver/stub.conf", "l": "/far/away"})
    mounts = json.dumps([{"type": "tmpfs", "target": "/l"}])
    script = "ls -d /far/away /run/resolver/stub.conf; cat /etc/resolv.conf > /dev/null"
    assert probe("changes", links, script, mounts) == "/far/away\n/run/resolver/stub.conf\n[]"


def test_an_image_without_system_directories_gets_none(probe: Probe) -> None:
    """They are there while a command runs, and in no layer afterwards."""
    gone = json.dumps({f".wh.{name}": "=" for name in ("proc", "sys", "dev")})
    script = "ls -d /proc/1 /sys/kernel /dev/null; stat -c %Y / > /dev/null"
    assert probe("changes", gone, script, "[]") == "/dev/null\n/proc/1\n/sys/kernel\n[]"


def test_accounts_are_not_read_from_system_directories() -> None:
    """Links of an image may lead its accounts to /proc, where the first process may read more
    than the command: nothing is read there, nor from /sys and /dev."""
    root = Root(os.open("/", os.O_PATH), proc=os.open("/proc", os.O_PATH))
    assert root.read("/etc/passwd").startswith(b"root:")
    for path in ("/proc/version", "/proc/self/status", "/sys/kernel/mm/ksm/run", "/dev/zero"):
        assert root.read(path) == b"", path
    root.close()


def _cells() -> list[tuple[str, str]]:
    masked = [("masked", path) for path in system_mounts.MASKED]
    return masked + [("read-only", path) for path in system_mounts.READONLY]


RUNC_MASKED = {
    "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys",
    "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug",
    "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
}  # fmt: skip
RUNC_READONLY = {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}


def test_the_lists_are_those_of_runc() -> None:
    """What is masked and what is read-only is what Docker gives runc."""
    assert set(system_mounts.MASKED) == RUNC_MASKED
    assert set(system_mounts.READONLY) == RUNC_READONLY
    assert system_mounts.TIME == LAYER_TIME


def test_table_of_masks(probe: Probe) -> None:
    """Each path that this kernel has is empty, or is on a mount that can't be written."""
    found = json.loads(probe("masks", json.dumps(_cells())))
    assert {path for _, path in _cells()} == set(found)
    there = [path for path in found if os.path.exists(path)]
    assert len(there) > 5
    for path in there:
        assert found[path] == "ok", (path, found[path])


DEVICES = {
    "null": "c 666 1:3", "zero": "c 666 1:5", "full": "c 666 1:7", "random": "c 666 1:8",
    "urandom": "c 666 1:9", "tty": "c 666 5:0",
    "fd": "l /proc/self/fd", "stdin": "l /proc/self/fd/0", "stdout": "l /proc/self/fd/1",
    "stderr": "l /proc/self/fd/2", "core": "l /proc/kcore", "ptmx": "l pts/ptmx",
    "pts": "d 755", "shm": "d 1777", "mqueue": "d 1777",
}  # fmt: skip


def test_table_of_devices(probe: Probe) -> None:
    """/dev has the default devices of the OCI runtime specification and nothing else."""
    found = json.loads(probe("devices"))
    if not Path("/proc/sys/fs/mqueue").exists():
        found["mqueue"] = DEVICES["mqueue"]
    assert found == DEVICES


def test_table_of_mounts(probe: Probe) -> None:
    """What is mounted, of which kind, and that no flag of runc's is missing."""
    found = json.loads(probe("mounted"))
    wanted = {
        "/proc": "nodev,noexec,nosuid,rw", "/sys": "nodev,noexec,nosuid,ro",
        "/dev": "nosuid,rw", "/dev/pts": "noexec,nosuid,rw",
        "/dev/shm": "nodev,noexec,nosuid,rw", "/etc/hosts": "nodev,noexec,nosuid,ro",
    }  # fmt: skip
    for path, flags in wanted.items():
        missing = set(flags.split(",")) - set(found[path].split(","))
        assert not missing, (path, found[path])
    writable = {path for path, flags in found.items() if "rw" in flags.split(",")}
    allowed = {"/", "/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"}
    masks = {path for path in RUNC_MASKED if found.get(path) is not None}  # /dev/null, bound
    assert writable <= allowed | masks | {f"/dev/{name}" for name in DEVICES}


def test_masks_stay_in_namespaces_of_the_command(probe: Probe) -> None:
    """Root of a user namespace that a command makes can take no mask away, nor see a new /proc."""
    said = probe("shell", (
        "unshare -Urmpf sh -c '"
        "umount /proc/keys && echo uncovered; umount /proc/sys && echo thawed; "
        "mkdir /p; mount -t proc none /p && echo again; "
        "mount -o bind /proc /p && cat /p/keys | grep . && echo bound; "
        "mount -o remount,rw,bind /proc/sys && echo writable; "
        "' 2>/dev/null; echo done"
    ))  # fmt: skip
    assert said == "done\n"


NUMBERS = {
    "0" * 20 + "1000": "1000",
    "0" * 40 + "1000": "1000",
    "00001000:00000000000000000000001001": "1000",
    "0" * 300 + "7": "7",
}


def test_users_with_leading_zeros(probe: Probe, request: pytest.FixtureRequest) -> None:
    """A number is read to its end: twenty zeros before it don't make root of anybody."""
    for user, expected in NUMBERS.items():
        said = probe("who", user)
        if "rootless-single" in request.node.name:
            assert "one user only" in said
        else:
            assert said == expected, user


@pytest.mark.parametrize("name", ["0" * 20 + "4294967296", "9" * 30, "+0", "-0", "0x0", "1_0", "٣"])
def test_users_that_are_no_numbers(probe: Probe, name: str) -> None:
    """What is no number in range is a name, and there is none of it."""
    assert "the image has no user" in probe("who", name)


SIGNALS = "for s in $(seq 1 64); do kill -$s 1 2>/dev/null; done; sleep 0.1; echo here"


def test_signals_to_the_first_process(probe: Probe) -> None:
    """No signal of all does anything to it: not SIGINT, which an interpreter handles."""
    assert probe("shell", SIGNALS) == "here\n"


REACHES = (
    "cat /proc/1/environ", "cat /proc/1/maps", "for f in /proc/1/fd/*; do readlink $f; done",
    "ls /proc/1/root/", "ls /proc/1/cwd/", "readlink /proc/1/exe", "cat /proc/1/stack",
    "cat /proc/1/syscall", "cat /proc/1/auxv", "cat /proc/1/io", "head -c 1 /proc/1/mem",
    "ls /proc/1/map_files/", "cat /proc/1/pagemap", "readlink /proc/1/ns/mnt",
)  # fmt: skip


def test_nothing_reaches_into_the_first_process(probe: Probe) -> None:
    """It can't be looked into, though it has the same user."""
    script = "; ".join(f"({line}) 2>/dev/null | grep -q . && echo '{line}'" for line in REACHES)
    assert probe("shell", script + "; true") == ""


def test_the_first_process_is_in_a_session_of_its_own(probe: Probe) -> None:
    """What a scheduler does by session can't be done to other steps."""
    session = probe("shell", "cut -d' ' -f6 /proc/1/stat").strip()
    assert session == "1"


def test_times_of_what_every_step_has(probe: Probe) -> None:
    """/dev, mount points that had to be made and empty mounts show one time, and not now."""
    mounts = json.dumps(
        [{"type": "tmpfs", "target": "/new/t"}, {"type": "secret", "target": "/key/s", "id": "s"}]
    )
    script = "stat -c %Y /dev /dev/fd /dev/shm /new/t /key/s /etc/hosts /proc/../dev | sort -u"
    assert probe("changes", "{}", script, mounts) == f"{LAYER_TIME}\n[]"
    old = '[ "$(stat -c %Y /)" = "$(stat -c %Y /new /key | sort -u)" ]'
    assert probe("changes", "{}", old, mounts) == "[]"


def test_a_command_that_puts_links_for_mount_points(probe: Probe) -> None:
    """Removing mount points touches nothing but what was made: not what took their place."""
    mounts = json.dumps(
        [{"type": "tmpfs", "target": "/new/a/b"}, {"type": "tmpfs", "target": "/more/c"}]
    )
    script = "mkdir /own /own/a /own/a/b; mv /new /gone; mv /own /new; ln -s /etc /e"
    changed = json.loads(probe("changes", "{}", script, mounts))
    assert changed == ["e", "gone", "gone/a", "gone/a/b", "new", "new/a", "new/a/b"]
