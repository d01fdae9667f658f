"""COPY, ADD and WORKDIR without running or mounting anything: trees in, a layer out.

The rules are those of BuildKit of August 2026, determined by observation and from its public
sources (fsutil's copy, llbsolver's file backend). In short:

- A destination with a trailing slash is a directory and is created; links in it are followed
  inside the image. A file goes into an existing directory, otherwise it takes the name.
- A directory as source stands for its contents. The destination itself keeps its mode and owner,
  or is created with 0755; directories beneath get those of the source, even if they existed.
- A file replaces a file or link; neither replaces a directory, nor a directory a file.
- Directories created on the way are 0755, or have the mode of an octal `--chmod`, and belong to
  `--chown`, otherwise to 0:0. `--parents` creates directories like those of the source.
- Extended attributes that users and programs rely on are copied: capabilities, ACLs, `user.*`.
- With several sources and a destination without slash that is no directory, each replaces the last.
- ADD unpacks local archives by content; their modes are kept, their owners unless `--chown` is
  given; entries replace existing ones.

It differs where BuildKit would give a wrong result: several names of one file in a source stay
names of one file.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, BinaryIO, Final, cast

from layercache._base.classes import evolve
from layercache._base.paths import encoded, shown_in_image
from layercache._os.allowance import Allows, UnpackAllowance
from layercache.errors import BuildError, UsageError
from layercache.layers.accounts import resolve_owner
from layercache.layers.acl import with_mode
from layercache.layers.add_archive import Unpacker
from layercache.layers.changes import Changes, Content, LayerChange
from layercache.layers.state_tree import StateTree
from layercache.layers.writer import LayerWriter
from layercache.model.descriptors import LAYER_TAR, SCRATCH, Layer
from layercache.model.digests import Digest
from layercache.model.layer_index import KeepsIndex
from layercache.model.layer_times import LAYER_TIME, coded_time
from layercache.model.mode_change import ModeChange, parse_mode
from layercache.model.observations import ABSENT, FOUND, LINK, Observations
from layercache.model.operations import CopyFiles, CopySource, MakeDirectory
from layercache.model.selectors import Files
from layercache.model.task import Blobs, Result, Task
from layercache.model.tree import ACCESS_ACL, HardLinks, Node, Tree, counted_attributes
from layercache.trees.order import Ordered, ranks_of
from layercache.trees.selection import Selected, leading, select, walk

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["CopyPlan", "copy_layer"]

_REMOTE_MODE: Final = 0o600
_HEREDOC_MODE: Final = 0o644


def copy_layer(task: Task, blobs: Blobs) -> Result:
    """Execute a `CopyFiles` or `MakeDirectory`; returns no layer if nothing changes.

    With `--link` the parent is not read. Raises `BuildError` (`SourceError` for a missing or
    hostile source, `ContextChanged`), `UsageError` for impossible values.
    """
    roles = {bound.role: bound.subject for bound in task.inputs}
    parent: Tree = blobs.tree(task.parent or SCRATCH) if _reads_parent(task) else _empty()
    allowance = blobs.allowance if isinstance(blobs, Allows) else None
    with CopyPlan(
        task.instruction, parent, lambda role: blobs.tree(roles[role]), allowance
    ) as plan:
        output = b"".join(f"warning: {w}\n".encode() for w in plan.warnings)
        if output:
            blobs.log(output)
        return evolve(_write(plan, blobs), output=output)


def _reads_parent(task: Task) -> bool:
    instruction = task.instruction
    return task.parent is not None and not (isinstance(instruction, CopyFiles) and instruction.link)


def _empty() -> Tree:
    def nothing(_number: int, _offset: int, _size: int) -> BinaryIO:
        raise BuildError("an empty state holds no files")

    return StateTree((), nothing)


def _write(plan: CopyPlan, blobs: Blobs) -> Result:
    import tempfile

    descriptor, path = tempfile.mkstemp(prefix="layercache-", suffix=".tar")
    try:
        with os.fdopen(descriptor, "wb", buffering=0) as sink:
            writer = LayerWriter(cast(BinaryIO, sink))
            plan.changes.write(writer, blobs.cancelled)
            observed = plan.observed
            if writer.empty:
                return Result(layer=None, observed=observed)
            diff_id, size, index = writer.finish()
        stored = blobs.add_file(path, LAYER_TAR, Digest(diff_id), size)
    except OSError as error:
        raise BuildError(f"can't write the layer: {error.strerror} ({path})") from error
    finally:
        if os.path.exists(path):
            os.unlink(path)
    layer = Layer(stored, diff_id, index.tree)
    if isinstance(blobs, KeepsIndex):
        blobs.keep_index(layer, index)
    return Result(layer=layer, observed=observed)


class CopyPlan:
    """The changes that a COPY, ADD or WORKDIR makes to a tree; a context manager, as archives are
    spooled.

    `changes` holds the outcome; only `parent` and the trees were read for it, and only archives
    among the files, whose content `allowance` counts. `trees` maps a role to its tree.
    `warnings` are sentences about probable mistakes.
    """

    def __init__(
        self,
        instruction: object,
        parent: Tree,
        trees: Callable[[str], Tree],
        allowance: UnpackAllowance | None = None,
    ) -> None:
        self.changes = Changes(parent)
        self._allowance = allowance
        self._trees = trees
        self._unpackers: list[Unpacker] = []
        self._derived: list[tuple[str, str]] = []
        self.warnings: list[str] = []
        try:
            if isinstance(instruction, MakeDirectory):
                self._make_directory(instruction)
            elif isinstance(instruction, CopyFiles):
                self._copy(instruction)
            else:
                raise UsageError(f"{instruction!r} copies no files")
        except BaseException:
            self.close()
            raise

    @property
    def reads(self) -> tuple[tuple[bytes, Node | None], ...]:
        """Every path of the parent that was looked up, with the node found, sorted."""
        return tuple(sorted(self.changes.reads.items(), key=lambda item: item[0]))

    @property
    def observed(self) -> Observations:
        """All facts of the parent that the outcome depends on; complete once `changes` are written.

        Only facts that decide something count: type, mode, owner and attributes of each path, and
        link targets. Accounts count by the resolved numbers.
        """
        seen = {path: _bits(node) for path, node in self.changes.reads.items()}
        return Observations.of(seen, self._derived)

    def close(self) -> None:
        """Release spooled archives; `changes` can't be written afterwards."""
        for unpacker in self._unpackers:
            unpacker.close()

    def __enter__(self) -> CopyPlan:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # -- WORKDIR ----------------------------------------------------------------------------

    def _make_directory(self, instruction: MakeDirectory) -> None:
        owner = (0, 0)
        if instruction.user:
            self._derived.append(("owner", instruction.user))
            try:
                owner = resolve_owner(instruction.user, self.changes.read_base)
            except BuildError:
                owner = (0, 0)  # an unusable line; a RUN as this user says what is wrong
        target = self.changes.resolve(encoded(instruction.path)).path
        self.changes.make_directories(target, *owner)

    # -- COPY and ADD -----------------------------------------------------------------------

    def _warn(self, sentence: str) -> None:
        self.warnings.append(sentence)

    def _copy(self, instruction: CopyFiles) -> None:
        owner = None
        if instruction.chown:
            read = None if instruction.link else self.changes.read_base
            if read is not None:
                self._derived.append(("owner", instruction.chown))
            owner = resolve_owner(instruction.chown, read, self._warn)
        chmod = parse_mode(instruction.chmod) if instruction.chmod else None
        ranks = self._ranks(instruction)
        copier = _Copier(self.changes, instruction, owner, chmod, ranks)
        for source in instruction.sources:
            if source.content is not None:
                copier.document(source)
                continue
            tree = self._trees(source.role)
            matches = select(tree, _files(instruction, source))
            if not matches and instruction.exclude:
                self._warn(f"--exclude leaves nothing of {source.pattern}")
            if instruction.parents:
                copier.with_parents(source.role, tree, matches)
                continue
            for match in matches:
                if not self._unpack(instruction, source, tree, match, owner, copier.made_mode):
                    copier.match(source.role, tree, match, remote=source.remote)

    def _ranks(self, instruction: CopyFiles) -> Mapping[int, Mapping[bytes, int]]:
        """For each tree (by `id`) that knows it, the order in which the copied files were
        written.
        """
        found: dict[int, tuple[Tree, list[Selected]]] = {}
        for source in instruction.sources:
            tree = None if source.content is not None else self._trees(source.role)
            if tree is not None and isinstance(tree, Ordered):
                matches = found.setdefault(id(tree), (tree, []))[1]
                matches += select(tree, _files(instruction, source))
        return {number: ranks_of(tree, matches) for number, (tree, matches) in found.items()}

    def _unpack(
        self,
        instruction: CopyFiles,
        source: CopySource,
        tree: Tree,
        match: Selected,
        owner: tuple[int, int] | None,
        made_mode: int,
    ) -> bool:
        wanted = instruction.unpack if instruction.unpack is not None else not source.remote
        if not wanted or not match.node.is_file:
            return False
        unpacker = Unpacker.of(
            partial(tree.open, match.path),
            what=f"{source.pattern} ({instruction.name})",
            allowance=self._allowance,
        )
        if unpacker is None:
            return False
        self._unpackers.append(unpacker)
        if os.geteuid() != 0:
            for device in unpacker.devices:
                self._warn(
                    f"{shown_in_image(device)} in {source.pattern} is a device: the image has it, "
                    "but the commands of a build without root don't see it"
                )
        target = self.changes.resolve(encoded(instruction.destination)).path
        self.changes.make_directories(target, *(owner or (0, 0)), made_mode)
        unpacker.apply(self.changes, target, owner)
        return True


def _files(instruction: CopyFiles, source: CopySource) -> Files:
    return Files(
        patterns=(source.pattern,),
        exclude=instruction.exclude,
        parents=instruction.parents,
        wildcards=not source.remote,
    )


class _Copier:
    """Adds matches of COPY and ADD to pending changes."""

    def __init__(
        self,
        changes: Changes,
        instruction: CopyFiles,
        owner: tuple[int, int] | None,
        chmod: ModeChange | None,
        ranks: Mapping[int, Mapping[bytes, int]],
    ) -> None:
        self._ranks = ranks
        self._changes = changes
        self._destination = encoded(instruction.destination)
        self._owner = owner
        self._chmod = chmod
        octal = chmod.absolute if chmod is not None else None
        self.made_mode = 0o755 if octal is None else octal
        """Permission bits of directories that no source has."""

    def document(self, source: CopySource) -> None:
        """Copy a here-document."""
        from blake3 import blake3

        data = source.content or b""
        node = Node(
            mode=stat.S_IFREG | _HEREDOC_MODE, size=len(data), content=blake3(data).digest()
        )
        target = self._file_target(encoded(source.pattern).rpartition(b"/")[2])
        self._put(node, target, data, None, 0)

    def match(self, role: str, tree: Tree, match: Selected, *, remote: bool) -> None:
        """Copy one match of a source: a file, or the contents of a directory."""
        node = match.node
        if not node.is_dir:
            if remote:
                node = evolve(node, mode=stat.S_IFMT(node.mode) | _REMOTE_MODE)
            target = self._file_target(match.name)
            same, rank = _shared(role, tree, match.path), self._rank(tree, match.path)
            self._put(node, target, partial(tree.open, match.path), same, rank)
            return
        target = self._directory_target(match.path)
        self._walk(role, tree, match, target, itself=False)

    def with_parents(self, role: str, tree: Tree, matches: Iterable[Selected]) -> None:
        """Copy matches below the destination, with the path that leads to them."""
        base = self._directory_target(b"")
        for match in matches:
            target = _join(base, match.relative)
            self._walk(role, tree, match, target, itself=bool(match.relative), base=base)

    # -- where to ---------------------------------------------------------------------------

    def _make(self, path: bytes) -> None:
        self._changes.make_directories(path, *(self._owner or (0, 0)), self.made_mode)

    def _prepare(self) -> tuple[bytes, Node | None]:
        """Create required directories, and resolve the destination."""
        head, _, last = self._destination.rpartition(b"/")
        made = head if last not in (b"", b".") else self._destination
        self._make(self._changes.resolve(made).path)
        found = self._changes.resolve(self._destination)
        return found.path, found.node

    def _file_target(self, name: bytes) -> bytes:
        target, node = self._prepare()
        if node is not None and node.is_dir:
            return _join(target, name)
        self._make(target.rpartition(b"/")[0])
        return target

    def _directory_target(self, source: bytes) -> bytes:
        target, node = self._prepare()
        if node is not None and not node.is_dir:
            raise BuildError(
                f"can't copy the directory {shown_in_image(source)} to "
                f"{shown_in_image(target)}, which is {_what(node)}"
            )
        self._make(target)
        return target

    def _make_parents(self, tree: Tree, match: Selected, base: bytes) -> None:
        """The directories between the destination and a match: like the source's, if missing."""
        for relative, node in leading(tree, match):
            path = _join(base, relative)
            there = self._changes.lookup(path)
            if there is None:
                self._changes.put(path, LayerChange(self._copied(node, 0)))
            elif not there.is_dir:
                raise BuildError(
                    f"can't copy below {shown_in_image(path)}, which is {_what(there)}, "
                    "not a directory"
                )

    # -- what -------------------------------------------------------------------------------

    def _walk(
        self,
        role: str,
        tree: Tree,
        match: Selected,
        target: bytes,
        *,
        itself: bool,
        base: bytes | None = None,
    ) -> None:
        """Copy all of a match; with `base`, the directories from there to it are created first."""
        for relative, path, node in walk(tree, match):
            if base is not None:
                self._make_parents(tree, match, base)
                base = None
            if relative or itself:
                content = partial(tree.open, path)
                same = None if node.is_dir else _shared(role, tree, path)
                self._put(node, _join(target, relative), content, same, self._rank(tree, path))

    def _rank(self, tree: Tree, path: bytes) -> int:
        ranks = self._ranks.get(id(tree))
        return ranks.get(path, 0) if ranks else 0

    def _put(
        self, node: Node, target: bytes, content: Content, same_file: object, rank: int
    ) -> None:
        there = self._changes.lookup(target)
        if there is not None and there.is_dir != node.is_dir:
            if node.is_dir:
                raise BuildError(
                    f"can't copy a directory to {shown_in_image(target)}, which is {_what(there)}"
                )
            raise BuildError(f"can't replace the directory {shown_in_image(target)} with a file")
        copied = self._copied(node, rank)
        self._changes.put(target, LayerChange(copied, content if copied.size else None, same_file))

    def _copied(self, node: Node, rank: int) -> Node:
        """The node as it appears in the image: owner, mode and time by the rules."""
        kind = stat.S_IFMT(node.mode)
        size, content, mtime = 0, b"", LAYER_TIME
        xattrs = counted_attributes(node)
        if kind == stat.S_IFSOCK:
            kind = stat.S_IFREG  # as seen of BuildKit: an empty file takes its place
        elif kind == stat.S_IFREG:
            size, content = node.size, node.content
        if kind == stat.S_IFREG:
            mtime = coded_time(max(0, 2 * rank - 1), content)
        permissions = node.mode & 0o7777
        if kind == stat.S_IFLNK:
            permissions = 0o777
        elif self._chmod is not None:
            permissions = self._chmod.apply(permissions, directory=node.is_dir)
            xattrs = _after_chmod(xattrs, permissions)
        uid, gid = self._owner or (node.uid, node.gid)
        return Node(
            mode=kind | permissions,
            uid=uid,
            gid=gid,
            size=size,
            mtime=mtime,
            content=content,
            link=node.link,
            device=node.device,
            xattrs=xattrs,
        )


def _what(node: Node) -> str:
    """What stands in the way of a directory, for a message."""
    return f"a symbolic link to {os.fsdecode(node.link)!r}" if node.is_link else "a file"


def _shared(role: str, tree: Tree, path: bytes) -> object | None:
    """A token for all names of one file of a source; None if it has a single name."""
    token = tree.inode(path) if isinstance(tree, HardLinks) else None
    return None if token is None else (role, token)


def _after_chmod(
    xattrs: tuple[tuple[bytes, bytes], ...], permissions: int
) -> tuple[tuple[bytes, bytes], ...]:
    """Attributes that agree with the new permission bits, which an ACL repeats."""
    kept = []
    for name, value in xattrs:
        found = with_mode(value, permissions) if name == ACCESS_ACL else value
        if found is not None:
            kept.append((name, found))
    return tuple(kept)


def _bits(node: Node | None) -> int:
    if node is None:
        return ABSENT
    return FOUND | LINK if node.is_link else FOUND


def _join(parent: bytes, name: bytes) -> bytes:
    return parent + b"/" + name if parent and name else parent or name
