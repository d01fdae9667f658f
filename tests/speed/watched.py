"""A command of layercache in a process of its own that tells what it did: run as a script.

    python watched.py REPORT ARGUMENTS...

Writes a JSON object to REPORT: `status`; `opened` and `listed`, the paths in the order of the
calls; `written`, those opened for writing; `asked`, those whose stat data, link or attributes
were asked for; `syncs`, how often something was made durable;
`modules`, what was loaded beyond what starts the interpreter; `bytes_read`, what read calls gave.
"""

from __future__ import annotations

import json
import os
import sys

BEFORE = frozenset(sys.modules)
PLACE = os.path.dirname(os.path.abspath(__file__))


def main() -> int:
    """Run the command."""
    report, *arguments = sys.argv[1:]
    found: dict[str, list[str]] = {"opened": [], "listed": [], "written": [], "asked": []}
    syncs = 0
    sys.path[:] = [path for path in sys.path if os.path.abspath(path) != PLACE]

    def watch(event: str, details: tuple[object, ...]) -> None:
        path = details[0] if details else None
        if event == "open" and isinstance(path, str | bytes):
            flags = details[2]
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR)
            found["written" if writes else "opened"].append(os.fsdecode(path))
        elif event in {"os.scandir", "os.listdir"}:
            found["listed"].append(place(path, None))

    def counted(call):
        def wrapped(*arguments):
            nonlocal syncs
            syncs += 1
            return call(*arguments)

        return wrapped

    def asking(call):
        def wrapped(path=".", *arguments, **options):
            found["asked"].append(place(path, options.get("dir_fd")))
            return call(path, *arguments, **options)

        return wrapped

    for name in ("stat", "lstat", "access", "readlink", "listxattr", "getxattr"):
        if hasattr(os, name):
            setattr(os, name, asking(getattr(os, name)))

    for name in ("fsync", "fdatasync", "sync"):
        if hasattr(os, name):
            setattr(os, name, counted(getattr(os, name)))

    from layercache._os import durability

    inner = durability._syncfs

    def counting():
        call = inner()
        return None if call is None else counted(call)

    vars(durability)["_syncfs"] = counting
    sys.addaudithook(watch)

    from layercache.cli import main as command

    before = bytes_read()
    status = command(arguments)
    told = {
        "status": status,
        **found,
        "syncs": syncs,
        "modules": sorted(set(sys.modules) - BEFORE),
        "bytes_read": bytes_read() - before,
    }
    with open(report, "w") as out:
        json.dump(told, out)
    return status


READLINK = os.readlink


def place(path: object, directory: int | None) -> str:
    """The path that a call means, given as such, as a descriptor, or within a directory."""
    if isinstance(path, int):
        directory, path = path, ""
    text = os.fsdecode(path or "")  # type: ignore[arg-type]
    if directory is not None:
        try:
            text = os.path.join(READLINK(f"/proc/self/fd/{directory}"), text)
        except OSError:
            text = os.path.join(f"descriptor {directory}", text)
    return text.rstrip("/") or "."


def bytes_read() -> int:
    """What the kernel counts for this process; 0 where it does not."""
    try:
        with open("/proc/self/io") as counters:
            return int(counters.readline().split()[1])
    except OSError:
        return 0


if __name__ == "__main__":
    sys.exit(main())
