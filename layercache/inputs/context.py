"""Build contexts in the forms that callers pass: a directory, a tree, a mapping."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from layercache.errors import SourceError, UsageError
from layercache.model.tree import Tree
from layercache.store.backend import InDirectory
from layercache.trees.patterns import IGNORE_FILE, Ignore

if TYPE_CHECKING:
    from layercache.store.parts import Cache

__all__ = ["context_maker", "ignore_rules"]


def context_maker(
    context: Any,
    store: Cache,
    *,
    dockerfile: str | None = None,
    write: bool = True,
    paranoid: bool = False,
    left_out: Sequence[str] = (),
) -> Callable[[], Tree]:
    """A function that makes the tree of `context` when it is first needed.

    A directory is scanned with its ignore file (`<Dockerfile>.dockerignore` beside the
    Dockerfile first, otherwise `.dockerignore` in its root) and a stat cache beside the store; a
    mapping of paths to contents and a `Tree` are used as they are, the mapping with its own
    `.dockerignore`. With `write` False nothing is written, not even the stat cache; with
    `paranoid` every selected file is read, whatever its stamps are. `left_out` are paths in a
    directory that its tree does not show.
    """
    if isinstance(context, Mapping):
        return partial(_mapped, context)
    if not isinstance(context, str | os.PathLike):
        if not isinstance(context, Tree):
            raise UsageError(
                f"a context is a directory, a Tree or a mapping of paths, not {context!r}"
            )
        return partial(_same, context)
    root = os.path.abspath(os.fspath(context))
    return _Directory(root, dockerfile, _cache_directory(store), write, paranoid, left_out)


class _Directory:
    """Scans a directory on first use; can be pickled for another process."""

    def __init__(
        self,
        root: str,
        dockerfile: str | None,
        cache: str | None,
        write: bool,
        paranoid: bool,
        left_out: Sequence[str],
    ) -> None:
        self.root = root
        self.dockerfile = dockerfile
        self.cache = cache
        self.write = write
        self.paranoid = paranoid
        self.left_out = tuple(left_out)

    def __call__(self) -> Tree:
        from layercache.inputs.scan.context_tree import Context

        if not os.path.isdir(self.root):
            raise SourceError(f"the build context {self.root!r} is not a directory")
        ignore = ignore_rules(self.root, self.dockerfile)
        if self.left_out:
            from layercache.inputs.own_places import without

            ignore = without(ignore, self.left_out)
        cache = None
        if self.cache is not None:
            cache = os.path.join(self.cache, Context.cache_name(self.root, ignore))
        found = Context(self.root, ignore, cache=cache, paranoid=self.paranoid)
        return found.scan(write_cache=self.write)


def ignore_rules(root: str, dockerfile: str | None = None) -> Ignore | None:
    """The ignore rules of the context `root`; None if there is no ignore file."""
    from layercache._os.small_files import read_beneath, read_file
    from layercache.dockerfile.recipe import beneath

    places = [os.path.join(root, IGNORE_FILE)]
    if dockerfile is not None:
        places.insert(0, dockerfile + IGNORE_FILE)
    for place in places:
        inside = beneath(root, place)
        try:
            text = read_file(place) if inside is None else read_beneath(root, inside)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise UsageError(f"can't read the ignore file {place}: {error.strerror}") from error
        return Ignore.parse(text, os.path.basename(place))
    return None


def _cache_directory(store: Cache) -> str | None:
    """The directory of stat caches: beside a local store; otherwise None."""
    backend = store.backend
    directory = backend.directory if isinstance(backend, InDirectory) else None
    return None if directory is None else os.path.join(directory, "scan")


def _same(tree: Tree) -> Tree:
    return tree


def _mapped(files: Mapping[str, Any]) -> Tree:
    from layercache.trees.in_memory import DictTree

    ignore_file = files.get(IGNORE_FILE)
    if ignore_file is None:
        return DictTree(files)
    ignore = Ignore.parse(ignore_file)
    return DictTree({path: value for path, value in files.items() if not ignore.matches(path)})
