"""Writing beneath a directory's file descriptor: nothing outside is ever touched.

Every component is opened with O_NOFOLLOW relative to the descriptor of its parent; a link in the
way is an error, never a path. Designed for writing depth first: the descriptors of the current
chain of directories stay open.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from itertools import count
from typing import Final

from layercache._os.names import checked_name, parted
from layercache._os.xattrs import get_xattr, list_xattrs, remove_xattr, set_xattr
from layercache.errors import BuildError
from layercache.model.tree import ACCESS_ACL, Node

__all__ = ["WriteBeneath"]

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NEEDED: Final = (b"security.capability", b"user.")
"""Extended attributes that are content; others are set only if the file system accepts them."""

_DEFAULT_ACL: Final = b"system.posix_acl_default"

Fill = Callable[[int], None]
"""Writes a file's bytes to a descriptor."""


class WriteBeneath:
    """Writes below the directory `root`, a path or an open descriptor.

    `owners` False ignores owners and everything that only root may set (rootless). Calls must come
    depth first: everything below a directory before the next entry. Metadata of a directory is set
    when it is left, so that writing into it needs no permission and changes no time. Use as a
    context manager; raises `BuildError` with the path if the file system refuses.

    `aside` is a directory on the same file system: a file that is removed while it has other names
    gets a name there, so that the others still show how many names there were.
    """

    def __init__(
        self, root: str | bytes | int, *, owners: bool = True, aside: str | None = None
    ) -> None:
        self._owners = owners
        self._aside = aside
        self._mine = (os.geteuid(), os.getegid())
        if isinstance(root, int):
            descriptor = os.open(b".", _DIRECTORY, dir_fd=root)
        else:
            descriptor = os.open(root, _DIRECTORY & ~os.O_NOFOLLOW)
        self._chain: list[tuple[bytes, int]] = [(b"", descriptor)]
        self._plain = {descriptor: self._gives_mine(descriptor)}
        """Descriptor → whether what is made in that directory belongs to this process."""
        self._bequeaths = {descriptor: _bequeaths(descriptor)}
        """Descriptor → whether what is made in that directory inherits an access control list."""
        self._pending: dict[bytes, tuple[Node | None, int | None]] = {}

    def __enter__(self) -> WriteBeneath:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            if kind is None:
                while self._chain:
                    self._leave()
        finally:
            for _, descriptor in self._chain:
                os.close(descriptor)
            self._chain.clear()

    def _gives_mine(self, directory: int) -> bool:
        # A group comes from the directory where that is set-group-ID, or mounted with `grpid`.
        found = os.fstat(directory)
        return found.st_gid == self._mine[1] and not found.st_mode & stat.S_ISGID

    # -- walking ----------------------------------------------------------------------------

    def _enter(self, directory: bytes) -> int:
        """The descriptor of a directory; directories that are left on the way get their
        metadata.
        """
        while True:
            path, descriptor = self._chain[-1]
            if path == directory:
                return descriptor
            if not path or directory.startswith(path + b"/"):
                break
            self._leave()
        rest = directory[len(path) + 1 :] if path else directory
        for name in rest.split(b"/"):
            path = path + b"/" + name if path else name
            try:
                descriptor = os.open(checked_name(name), _DIRECTORY, dir_fd=descriptor)
            except OSError as error:
                raise _trouble(path, error) from error
            self._chain.append((path, descriptor))
            self._plain[descriptor] = self._gives_mine(descriptor)
            self._bequeaths[descriptor] = _bequeaths(descriptor)
        return descriptor

    def _leave(self) -> None:
        path, descriptor = self._chain[-1]
        node, mtime = self._pending.pop(path, (None, None))
        try:
            if node is not None:
                self._describe(path, descriptor, node)
            elif mtime is not None:
                os.utime(descriptor, ns=(mtime, mtime))
        except OSError as error:
            raise _trouble(path, error) from error
        self._chain.pop()
        os.close(descriptor)

    def _place(self, path: bytes) -> tuple[int, bytes]:
        try:
            directory, name = parted(path)
        except OSError as error:
            raise _trouble(path, error) from error
        return self._enter(directory), name

    def kind(self, path: bytes) -> int | None:
        """The file type of the entry at `path` (`stat.S_IFMT`), None if there is none."""
        if not path:
            return stat.S_IFDIR
        directory, name = self._place(path)
        try:
            return stat.S_IFMT(os.lstat(name, dir_fd=directory).st_mode)
        except FileNotFoundError:
            return None

    # -- directories ------------------------------------------------------------------------

    def make(self, path: bytes, node: Node) -> None:
        """Create the directory `path`; the metadata of `node` is applied when it is left."""
        if path:
            directory, name = self._place(path)
            try:
                os.mkdir(name, 0o700, dir_fd=directory)
                if self._bequeaths[directory]:
                    _disown(_place_of(directory, name))
            except OSError as error:
                raise _trouble(path, error) from error
        self._pending[path] = (node, None)
        self._enter(path)

    def describe(self, path: bytes, node: Node) -> None:
        """Apply the metadata of `node` to the existing directory `path` when it is left."""
        descriptor = self._enter(path)
        self._pending[path] = (node, None)
        wanted = {os.fsdecode(name) for name, _ in node.xattrs}
        try:
            if not self._owners:  # root may write whatever the mode is
                os.fchmod(descriptor, stat.S_IMODE(os.fstat(descriptor).st_mode) | stat.S_IRWXU)
            for name in list_xattrs(descriptor):
                if name not in wanted and name.startswith(("user.", "trusted.")):
                    remove_xattr(descriptor, name)
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.EPERM):
                raise _trouble(path, error) from error

    def keep_time(self, path: bytes) -> None:
        """Preserve the mtime of the existing directory `path`, whatever is written into it."""
        descriptor = self._enter(path)
        self._pending.setdefault(path, (None, os.fstat(descriptor).st_mtime_ns))

    def empty(self, path: bytes) -> None:
        """Remove everything below the directory `path`."""
        directory = self._enter(path)
        try:
            with os.scandir(directory) as entries:
                names = [os.fsencode(entry.name) for entry in entries]
            for name in names:
                _remove(directory, name, self._aside)
        except OSError as error:
            raise _trouble(path, error) from error

    def is_empty(self, path: bytes) -> bool:
        """Whether the existing directory `path` is empty."""
        with self._opened(path) as directory, os.scandir(directory) as entries:
            return next(entries, None) is None

    def remove(self, path: bytes) -> None:
        """Remove the entry at `path`, if it exists, with everything below."""
        directory, name = self._place(path)
        try:
            _remove(directory, name, self._aside)
        except OSError as error:
            raise _trouble(path, error) from error

    def mark(self, path: bytes, name: str, value: bytes) -> None:
        """Set an extended attribute on the directory `path`."""
        try:
            set_xattr(self._enter(path), name, value)
        except OSError as error:
            raise _trouble(path, error) from error

    # -- other entries ----------------------------------------------------------------------

    def file(self, path: bytes, node: Node, fill: Fill | None) -> None:
        """Create a regular file; nothing may exist at `path`. `fill` None leaves it empty."""
        directory, name = self._place(path)
        try:
            descriptor = os.open(name, _CREATE, 0o600, dir_fd=directory)
            try:
                if self._bequeaths[directory]:
                    _disown(descriptor)
                if fill is not None:
                    fill(descriptor)
                owned = (node.uid, node.gid) == self._mine and self._plain[directory]
                self._describe(path, descriptor, node, owned=owned)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise _trouble(path, error) from error

    def other(self, path: bytes, node: Node) -> None:
        """Create a link, a device (without `owners` only if that is permitted) or a FIFO; nothing
        may exist at `path`.
        """
        directory, name = self._place(path)
        try:
            if node.is_link:
                os.symlink(node.link, name, dir_fd=directory)
            else:
                device = os.makedev(*node.device)
                os.mknod(name, stat.S_IFMT(node.mode) | 0o600, device, dir_fd=directory)
                if self._bequeaths[directory]:
                    _disown(_place_of(directory, name))
            if self._owners:
                os.chown(name, node.uid, node.gid, dir_fd=directory, follow_symlinks=False)
            if not node.is_link:
                # Just created, so it is no link that could be followed; no call refuses links here.
                os.chmod(name, stat.S_IMODE(node.mode), dir_fd=directory)
            if node.xattrs:
                self._attributes(path, _place_of(directory, name), node, follow=False)
            times = (node.mtime * 10**9,) * 2
            os.utime(name, ns=times, dir_fd=directory, follow_symlinks=False)
        except OSError as error:
            is_device = stat.S_ISCHR(node.mode) or stat.S_ISBLK(node.mode)
            if is_device and not self._owners and error.errno == errno.EPERM:
                return  # no user namespace may make devices, whatever else it may
            raise _trouble(path, error) from error

    def link(self, path: bytes, target: bytes) -> bool:
        """Make `path` another name of the existing `target`; False if that is impossible
        (EMLINK).
        """
        directory, name = self._place(path)
        try:
            above, last = parted(target)
            with self._opened(above) as other:
                os.link(
                    last,
                    name,
                    src_dir_fd=other,
                    dst_dir_fd=directory,
                    follow_symlinks=False,
                )
        except OSError as error:
            if error.errno == errno.EMLINK:
                return False
            raise _trouble(path, error) from error
        return True

    def whiteout(self, path: bytes) -> None:
        """Create the character device 0:0, which overlay file systems interpret as a deletion."""
        directory, name = self._place(path)
        try:
            os.mknod(name, stat.S_IFCHR, 0, dir_fd=directory)
        except OSError as error:
            raise _trouble(path, error) from error

    def _opened(self, directory: bytes) -> _Walk:
        return _Walk(self._chain[0][1], directory)

    # -- metadata ---------------------------------------------------------------------------

    def _describe(self, path: bytes, descriptor: int, node: Node, *, owned: bool = False) -> None:
        if self._owners and not owned:
            os.fchown(descriptor, node.uid, node.gid)
        os.fchmod(descriptor, node.mode & 0o7777)
        if node.xattrs:
            self._attributes(path, descriptor, node, follow=True)
        mtime = node.mtime * 10**9
        os.utime(descriptor, ns=(mtime, mtime))

    def _attributes(self, path: bytes, target: int | bytes, node: Node, *, follow: bool) -> None:
        for name, value in node.xattrs:
            try:
                set_xattr(target, name, value, follow_symlinks=follow)
            except OSError as error:
                needed = name.startswith(_NEEDED) and (self._owners or name.startswith(b"user."))
                if needed and not (node.is_link and error.errno == errno.EPERM):
                    raise _trouble(path, error) from error


def _place_of(directory: int, name: bytes) -> bytes:
    """A path of an entry, for calls that take no descriptor of the directory: /proc names it."""
    return b"/proc/self/fd/%d/" % directory + name


def _bequeaths(directory: int) -> bool:
    """Whether a directory has a default access control list, which overrides modes."""
    try:
        return bool(get_xattr(directory, _DEFAULT_ACL))
    except OSError:
        return False


def _disown(target: int | bytes) -> None:
    """Take away the access control lists that a new entry inherited: a layer says what it has."""
    for name in (_DEFAULT_ACL, ACCESS_ACL):
        try:
            remove_xattr(target, name, follow_symlinks=isinstance(target, int))
        except OSError as error:
            if error.errno not in (errno.ENODATA, errno.ENOTSUP):
                raise


class _Walk:
    """A descriptor of a directory below another one, opened step by step, closed at the end."""

    def __init__(self, root: int, directory: bytes) -> None:
        self._descriptor = os.open(b".", _DIRECTORY, dir_fd=root)
        for name in directory.split(b"/") if directory else ():
            outer = self._descriptor
            try:
                self._descriptor = os.open(checked_name(name), _DIRECTORY, dir_fd=outer)
            finally:
                os.close(outer)

    def __enter__(self) -> int:
        return self._descriptor

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        os.close(self._descriptor)


def _keep_links(aside: str, directory: int, name: bytes) -> None:
    """Give a file with several names one more name in `aside`, so that it keeps their number."""
    found = os.lstat(name, dir_fd=directory)
    if stat.S_ISDIR(found.st_mode) or found.st_nlink < 2:
        return
    for number in count():
        other = os.path.join(aside, f"{found.st_ino}-{number}")
        try:
            os.link(name, other, src_dir_fd=directory, follow_symlinks=False)
        except FileExistsError:
            continue
        return


def _remove(directory: int, name: bytes, aside: str | None = None) -> None:
    """Remove `name` with everything below, following nothing; a missing name is ignored."""
    try:
        if aside is not None:
            _keep_links(aside, directory, name)
        os.unlink(name, dir_fd=directory)
        return
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in (errno.EISDIR, errno.EPERM):
            raise
        if not stat.S_ISDIR(os.lstat(name, dir_fd=directory).st_mode):
            raise
    stack: list[tuple[int, bytes, int, Iterator[bytes]]] = []

    def push(parent: int, child: bytes) -> None:
        descriptor = os.open(child, _DIRECTORY, dir_fd=parent)
        if os.fstat(descriptor).st_mode & 0o700 != 0o700:
            os.fchmod(descriptor, 0o700)
        with os.scandir(descriptor) as entries:
            names = [(os.fsencode(e.name), e.is_dir(follow_symlinks=False)) for e in entries]
        for entry, is_directory in names:
            if not is_directory:
                if aside is not None:
                    _keep_links(aside, descriptor, entry)
                os.unlink(entry, dir_fd=descriptor)
        stack.append((parent, child, descriptor, iter([n for n, d in names if d])))

    try:
        push(directory, name)
        while stack:
            parent, child, descriptor, names = stack[-1]
            following = next(names, None)
            if following is not None:
                push(descriptor, following)
                continue
            stack.pop()
            os.close(descriptor)
            os.rmdir(child, dir_fd=parent)
    finally:
        for _, _, descriptor, _ in stack:
            os.close(descriptor)


def _trouble(path: bytes, error: OSError) -> BuildError:
    return BuildError(f"can't write {os.fsdecode(path) or '/'!r} below its root: {error.strerror}")
