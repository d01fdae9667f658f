"""Directories on disk: what they hold, as plain values to compare; overlay mounts."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from layercache.model.tree import Tree

IGNORED = ("trusted.overlay.", "user.overlay.", "security.selinux")


def snapshot(
    root: Path, *, times: bool = True, owners: bool = True
) -> dict[str, tuple[object, ...]]:
    """Everything below `root`: mode, owner, size, time, content, attributes, group of names."""
    found: dict[str, tuple[object, ...]] = {}
    groups: dict[tuple[int, int], str] = {}
    base = os.fsencode(root)
    for directory, names, files in os.walk(base):
        names.sort()
        for name in sorted(names + files):
            path = os.path.join(directory, name)
            relative = os.path.relpath(path, base).decode("utf-8", "surrogateescape")
            info = os.lstat(path)
            kind = stat.S_IFMT(info.st_mode)
            content: object = ""
            if kind == stat.S_IFREG:
                with open(path, "rb") as file:
                    content = hashlib.sha256(file.read()).hexdigest()
            elif kind == stat.S_IFLNK:
                content = os.readlink(path)
            elif kind in (stat.S_IFCHR, stat.S_IFBLK):
                content = info.st_rdev
            attributes = tuple(
                sorted(
                    (n, os.getxattr(path, n, follow_symlinks=False))
                    for n in os.listxattr(path, follow_symlinks=False)
                    if not n.startswith(IGNORED)
                )
            )
            group = ""
            if kind != stat.S_IFDIR and info.st_nlink > 1:
                group = groups.setdefault((info.st_dev, info.st_ino), relative)
            found[relative] = (
                oct(info.st_mode),
                (info.st_uid, info.st_gid) if owners else None,
                info.st_size if kind == stat.S_IFREG else 0,
                info.st_mtime_ns if times else None,
                content,
                attributes,
                group,
            )
    # A name whose other names show no more (copied up, replaced) has the file for itself.
    shared = Counter(values[6] for values in found.values())
    return {
        path: (*values[:6], values[6] if shared[values[6]] > 1 else "")
        for path, values in found.items()
    }


def tree_snapshot(tree: Tree) -> dict[str, tuple[object, ...]]:
    """The same of a tree; without groups of names."""
    found: dict[str, tuple[object, ...]] = {}
    todo = [b""]
    while todo:
        path = todo.pop()
        node = tree.lookup(path)
        assert node is not None, path
        if node.is_dir:
            todo += [path + b"/" + name if path else name for name in tree.children(path)]
        if not path:
            continue
        content: object = ""
        if node.is_file:
            with tree.open(path) as stream:
                content = hashlib.sha256(stream.read()).hexdigest()
        elif node.is_link:
            content = node.link
        elif node.device != (0, 0):
            content = os.makedev(*node.device)
        found[path.decode("utf-8", "surrogateescape")] = (
            oct(node.mode),
            (node.uid, node.gid),
            node.size if node.is_file else 0,
            node.mtime * 10**9,
            content,
            tuple((name.decode(), value) for name, value in node.xattrs),
            "",
        )
    return found


def without_groups(found: dict[str, tuple[object, ...]]) -> dict[str, tuple[object, ...]]:
    """A snapshot without which names belong together."""
    return {path: (*values[:6], "") for path, values in found.items()}


def differences(
    first: dict[str, tuple[object, ...]], second: dict[str, tuple[object, ...]]
) -> list[str]:
    """The paths at which two snapshots differ, with both sides."""
    return [
        f"{path}: {first.get(path)} / {second.get(path)}"
        for path in sorted(first.keys() | second.keys())
        if first.get(path) != second.get(path)
    ]


@contextlib.contextmanager
def overlay(merged: Path, lowers: list[Path], upper: Path | None = None) -> Iterator[Path]:
    """An overlay of `lowers` (topmost first), writable with `upper`."""
    merged.mkdir(exist_ok=True)
    options = "lowerdir=" + ":".join(map(str, lowers))
    if upper is not None:
        work = upper.parent / (upper.name + ".work")
        work.mkdir(exist_ok=True)
        options += f",upperdir={upper},workdir={work}"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(merged)], check=True)
    try:
        yield merged
    finally:
        subprocess.run(["umount", str(merged)], check=True)


def overlay_works(directory: Path) -> bool:
    """Whether overlay file systems can be mounted here."""
    if os.geteuid() != 0:
        return False
    names = [directory / name for name in ("low", "up", "merged")]
    for name in names:
        name.mkdir()
    try:
        with overlay(names[2], [names[0]], names[1]):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False
