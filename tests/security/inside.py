"""What is asked from inside a step: run in this process as root, or as an ordinary user by

    python -m tests.security.inside NAME SCRATCH ARGUMENT...

which prints what the function NAME returned.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from layercache.errors import LayerCacheError
from layercache.model.descriptors import State
from layercache.model.operations import Mount
from layercache.testing.images import busybox_layer, tar_of
from tests.executors.rootfs.conftest import Bench

OPTIONS: dict[str, dict[str, Any]] = {
    "insecure": {"allow_insecure": True},
    "insecure_calls": {"allow_insecure": True},
    "changes": {"secrets": {"s": b"hidden"}},
}
"""Options of the executor for a function."""


def status(bench: Bench) -> str:
    """/proc/self/status of root's command."""
    return bench.out("cat /proc/self/status", network="none")


def status_of_user(bench: Bench) -> str:
    """/proc/self/status of an ordinary user's command."""
    return bench.out("cat /proc/self/status", user="app", network="none")


def insecure(bench: Bench) -> str:
    """/proc/self/status of a command that all is allowed to."""
    return bench.out("cat /proc/self/status", security="insecure")


def shell(bench: Bench, script: str) -> str:
    """What a shell command writes."""
    return bench.out(script)


def calls(bench: Bench, program: str, table: str) -> str:
    """The results of the system calls in `table`, as `probe.c` prints them."""
    image = tar_of({"probe": Path(program).read_bytes(), "calls": table.encode()}, mode=0o755)
    return bench.out("/probe /calls", state=bench.layer(image, bench.base))


def image_of(bench: Bench, entries: str) -> State:
    """busybox with further entries, a JSON object: links, `=text` for files, `name/` for
    directories."""
    found: dict[str, Any] = {}
    gone: dict[str, Any] = {}
    for name, text in json.loads(entries).items():
        found[name.rstrip("/")] = None if name.endswith("/") else text
        if text.startswith("="):
            found[name] = text[1:].encode()
        if name.rstrip("/") in ("proc", "sys", "dev"):
            gone[f".wh.{name}"] = b""
    state = bench.layer(tar_of(gone), bench.base) if gone else bench.base
    return bench.layer(tar_of(found), state) if found else state


def mounts_of(texts: str) -> tuple[Mount, ...]:
    """Mounts from a JSON list of their fields."""
    return tuple(Mount(**{"readonly": False, **fields}) for fields in json.loads(texts))


def refused(bench: Bench, entries: str, script: str, mounts: str) -> str:
    """What a step says that should not run; an error when it does."""
    state = image_of(bench, entries)
    try:
        bench.sh(script, state=state, mounts=mounts_of(mounts))
    except LayerCacheError as error:
        return f"{type(error).__name__}: {error}"
    raise AssertionError("the step ran")


def refusals(bench: Bench, mounts: str) -> str:
    """What steps with one of these mounts each say, as a JSON list."""
    return json.dumps([refused(bench, "{}", "true", json.dumps([m])) for m in json.loads(mounts)])


def changes(bench: Bench, entries: str, script: str, mounts: str) -> str:
    """What a command writes, and the paths of its layer as a JSON list."""
    result = bench.sh(script, state=image_of(bench, entries), mounts=mounts_of(mounts))
    return result.output.decode() + json.dumps(sorted(bench.entries(result)))


def masks(bench: Bench, cells: str) -> str:
    """For each path `ok` when it is masked (shows nothing) or read-only, else what it shows; what
    is not there is not there here either."""
    script = []
    for kind, path in json.loads(cells):
        if kind == "masked":
            look = f"if [ -d {path} ]; then ls -A {path}; else cat {path}; fi 2>&1 | head -c 60"
            script.append(f'[ -e {path} ] && echo "{path} $({look})" || echo "{path} absent"')
        else:
            look = f"awk '$5 == \"{path}\" {{ print $6 }}' /proc/self/mountinfo | tail -1"
            script.append(f'[ -e {path} ] && echo "{path} $({look})" || echo "{path} absent"')
    found = {}
    kinds = {path: kind for kind, path in json.loads(cells)}
    for line in bench.out("\n".join(script)).splitlines():
        path, _, shown = line.partition(" ")
        if kinds[path] == "masked":
            found[path] = "ok" if shown == "" else shown
        else:
            found[path] = "ok" if "ro" in shown.split(",") else shown
    return json.dumps(found)


def devices(bench: Bench) -> str:
    """What is in /dev: type, mode and numbers, or where a link leads."""
    script = (
        "cd /dev; for f in *; do if [ -L $f ]; then echo $f l $(readlink $f); elif [ -d $f ]; "
        "then echo $f d $(stat -c %a $f); elif [ -c $f ]; then "
        "echo $f c $(stat -c '%a %t:%T' $f); else echo $f other; fi; done"
    )
    return json.dumps(dict(line.split(" ", 1) for line in bench.out(script).splitlines()))


def mounted(bench: Bench) -> str:
    """Where something is mounted, with its flags."""
    rows = [line.split() for line in bench.out("cat /proc/self/mountinfo").splitlines()]
    return json.dumps({row[4]: row[5] for row in rows})


def who(bench: Bench, user: str) -> str:
    """The number of the user that `USER` names, or what is wrong with it."""
    try:
        return bench.out("id -u", user=user).strip()
    except LayerCacheError as error:
        return str(error)


def resolve(bench: Bench, program: str) -> str:
    """/etc/resolv.conf, and whether the resolver in it answers."""
    image = tar_of({"probe": Path(program).read_bytes()}, mode=0o755)
    script = "cat /etc/resolv.conf; /probe datagram 10.0.2.3 53 ''"
    return bench.out(script, state=bench.layer(image, bench.base))


def insecure_calls(bench: Bench, program: str, table: str) -> str:
    """`calls`, of a command that all is allowed to."""
    image = tar_of({"probe": Path(program).read_bytes(), "calls": table.encode()}, mode=0o755)
    return bench.out("/probe /calls", state=bench.layer(image, bench.base), security="insecure")


def main() -> None:
    name, scratch, *arguments = sys.argv[1:]
    layer = busybox_layer()
    assert layer is not None
    bench = Bench(Path(scratch), layer, **OPTIONS.get(name, {}))
    try:
        print(globals()[name](bench, *arguments), end="")
    finally:
        bench.executor.close()


if __name__ == "__main__":
    main()
