"""Directories made from plain values, and changed as people and tools change them."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping

import pytest

from layercache.inputs.scan.context_tree import Context, ContextTree
from layercache.model.selectors import Files
from layercache.model.tree import Node
from layercache.trees.patterns import Ignore

Entry = str | bytes | tuple[Node, bytes]

CAPABILITY = b"\x01\x00\x00\x02\x00\x04\x00\x00" + bytes(12)
"""A `security.capability` value (version 2): cap_net_bind_service, permitted, effective."""

ALL = Files((".",))


def make(root: str, entries: Mapping[str, Entry]) -> str:
    """Write `entries` (as `DictTree` takes them) below `root`; returns `root`."""
    os.makedirs(root, exist_ok=True)
    for name, value in entries.items():
        put(root, name, value)
    return root


def put(root: str, name: str, value: Entry) -> None:
    """Write one entry, replacing a file in place."""
    path = os.path.join(os.fsencode(root), os.fsencode(name))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if not isinstance(value, tuple):
        with open(path, "wb") as out:
            out.write(value.encode() if isinstance(value, str) else value)
        os.chmod(path, 0o644)
        return
    node, data = value
    if node.is_dir:
        os.makedirs(path, exist_ok=True)
    elif node.is_link:
        os.symlink(node.link, path)
        return
    elif node.is_file:
        with open(path, "wb") as out:
            out.write(data)
    else:
        os.mknod(path, node.mode, os.makedev(*node.device))
    os.chmod(path, stat.S_IMODE(node.mode))


def scan(
    root: str, cache: str | None = None, ignore: str | None = None, **options: bool
) -> ContextTree:
    """A scanned context."""
    paranoid = options.pop("paranoid", False)
    rules = None if ignore is None else Ignore.parse(ignore)
    return Context(root, rules, cache=cache, paranoid=paranoid).scan(**options)


def fingerprint(
    root: str, cache: str | None = None, ignore: str | None = None, files: Files = ALL
) -> str:
    """The fingerprint of a selection, by a scan of its own that also saves."""
    with scan(root, cache, ignore) as tree:
        return tree.fingerprint(files)


def counts(tree: ContextTree) -> dict[str, int]:
    """What a tree asked of the file system."""
    return {name: getattr(tree.counts, name) for name in tree.counts.__slots__}


def age(root: str) -> None:
    """Let stamps get old enough to be trusted: what follows is about files at rest."""
    import time

    time.sleep(0.03)


@contextlib.contextmanager
def unprivileged() -> Iterator[str]:
    """A directory to work in as somebody whom permissions bind."""
    directory = tempfile.mkdtemp(dir="/tmp")
    os.chmod(directory, 0o777)
    root = os.geteuid() == 0
    try:
        if root:
            os.seteuid(65534)
        try:
            yield directory
        finally:
            if root:
                os.seteuid(0)
    finally:
        for where, _, _ in os.walk(directory):
            os.chmod(where, 0o700)
        shutil.rmtree(directory)


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
