"""The tree of an image as a step's root directory: path resolution and mount points.

The image is hostile. The kernel resolves its paths beneath its root, never through links of /proc,
and every step of creating a mount point uses a descriptor. As in runc, /proc, /sys and /dev must be
real directories, or the step is refused; no other mount is attached at or below them, wherever
links lead.
"""

from __future__ import annotations

import errno
import os
import stat

from layercache.executors.rootfs.inside import syscalls as sys_
from layercache.executors.rootfs.inside.mounts import IN_ROOT

__all__ = ["Refused", "Root", "attach_system"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    Stub: TypeAlias = "tuple[str, int]"

MAX_LINKS = 40
"""Links without a target that one mount point may lead through; the kernel's own limit."""

_MISSING = (errno.ENOENT, errno.ENOTDIR)
_NO_LINKS = sys_.RESOLVE_BENEATH | sys_.RESOLVE_NO_SYMLINKS | sys_.RESOLVE_NO_MAGICLINKS


class Refused(Exception):
    """The step can't start because of the recipe; `status` is what a shell would return."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


class Root:
    """An image's tree behind the open directory `fd`, which it takes over.

    `proc` is an open /proc that nothing of the image can cover: it gives the real path and the
    mount of a descriptor. `upper` is the open upper directory of the tree, -1 if it has none.
    `made` lists created mount points: the path in the image with every link resolved, and the inode
    in the upper directory; each after its parent directory.
    """

    def __init__(self, fd: int, *, proc: int, upper: int = -1) -> None:
        self.fd = fd
        self.made: list[Stub] = []
        self._proc = proc
        self._upper = upper
        self._own = self.mount_of(fd)
        self._allowed = {self._own}

    def close(self) -> None:
        for fd in (self.fd, self._proc, self._upper):
            if fd >= 0:
                os.close(fd)

    # -- looking ----------------------------------------------------------------------------

    def find(self, path: str) -> int | None:
        """`path` as a descriptor, None if it is missing; raises ELOOP for links that lead nowhere
        or to a process.
        """
        try:
            return sys_.openat2(self.fd, path.lstrip("/") or ".", os.O_PATH, IN_ROOT)
        except OSError as error:
            if error.errno in _MISSING:
                return None
            raise

    def read(self, path: str, limit: int = 8 << 20) -> bytes:
        """The content of a regular file, empty if there is none.

        Files that links reach in /proc, /sys or /dev don't count: this process may read more there
        than the command, and reading may consume data (`/proc/kmsg`).
        """
        try:
            found = self.find(path)
        except OSError as error:
            if error.errno == errno.ELOOP:
                return b""
            raise
        if found is None:
            return b""
        try:
            if not stat.S_ISREG(os.fstat(found).st_mode) or not self._allowed_at(found):
                return b""
            fd = os.open(f"self/fd/{found}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._proc)
        finally:
            os.close(found)
        try:
            parts = []
            while limit > 0 and (part := os.read(fd, min(limit, 1 << 20))):
                parts.append(part)
                limit -= len(part)
            return b"".join(parts)
        finally:
            os.close(fd)

    def path_of(self, fd: int) -> str:
        """The path of an open directory in the image, without links."""
        root, path = (os.readlink(f"self/fd/{n}", dir_fd=self._proc) for n in (self.fd, fd))
        if root == "/":
            return path
        if path == root:
            return "/"
        if not path.startswith(root + "/"):
            raise OSError(errno.EXDEV, f"{path} is not in the image")
        return path[len(root) :]

    def mount_of(self, fd: int) -> int:
        """The number of the mount that contains a descriptor."""
        info = os.open(f"self/fdinfo/{fd}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._proc)
        try:
            text = os.read(info, 4096)
        finally:
            os.close(info)
        at = text.index(b"mnt_id:")
        return int(text[at + 7 : text.index(b"\n", at)])

    # -- making -----------------------------------------------------------------------------

    def make(self, path: str, *, directory: bool, owner: tuple[int, int] | None = None) -> int:
        """`path` as a descriptor; the path and missing parents are created.

        A created path belongs to `owner` and stays; without an owner it is a mount point, which is
        listed in `made`, and is created only where mounts are permitted. Raises `Refused` if the
        image prevents it.
        """
        at = os.path.normpath("/" + path.lstrip("/"))
        try:
            for _ in range(MAX_LINKS):
                found, missing = self._deepest(at)
                if not missing:
                    return found
                link = _link(missing[-1], found)
                if not link:
                    break
                # It leads to what is not there yet: that is what has to be made.
                here = "/" if link.startswith("/") else self.path_of(found)
                os.close(found)
                at = os.path.join(here, link, *reversed(missing[:-1]))
            else:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        except OSError as error:
            raise Refused(f"{path} can't be made in the image: {error.strerror}") from error
        try:
            if ".." in missing:
                raise OSError(errno.ENOENT, "it leads up from a directory that is not there")
            while missing:
                inner = self._create(found, missing.pop(), directory or bool(missing), owner)
                os.close(found)
                found = inner
        except OSError as error:
            os.close(found)
            raise Refused(f"{path} can't be made in the image: {error.strerror}") from error
        except BaseException:
            os.close(found)
            raise
        return found

    def _deepest(self, at: str) -> tuple[int, list[str]]:
        """The existing part of a path, and the missing names, the first one last."""
        missing: list[str] = []
        at = at.rstrip("/")  # of a link to a file, say: mounting tells whether that is right
        while (found := self.find(at)) is None:
            at, name = os.path.split(at.rstrip("/"))
            if name != ".":
                missing.append(name)
        return found, missing

    def _create(
        self, parent: int, name: str, directory: bool, owner: tuple[int, int] | None
    ) -> int:
        """Create `name` in the open directory `parent`, and open it."""
        info = os.fstat(parent)
        if not stat.S_ISDIR(info.st_mode):
            raise OSError(errno.ENOTDIR, "there is a file where a directory has to be")
        if owner is None:
            self._allow(parent)
        if directory:
            os.mkdir(name, 0o755, dir_fd=parent)
        else:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            os.close(os.open(name, flags, 0o644, dir_fd=parent))
        if owner is not None:
            os.chown(name, *owner, dir_fd=parent, follow_symlinks=False)
        elif self.mount_of(parent) == self._own:
            self._note(parent, name, info)
        return sys_.openat2(parent, name, os.O_PATH, _NO_LINKS)

    def _note(self, parent: int, name: str, before: os.stat_result) -> None:
        """List a new mount point; reset its time and that of its parent directory, so that they
        don't show when the step ran.
        """
        path = os.path.join(self.path_of(parent), name)
        inode = 0
        if self._upper >= 0:
            made = sys_.openat2(self._upper, path.lstrip("/"), os.O_PATH, _NO_LINKS)
            inode = os.fstat(made).st_ino
            os.close(made)
        self.made.append((path, inode))
        times = (before.st_mtime_ns, before.st_mtime_ns)
        os.utime(name, ns=times, dir_fd=parent, follow_symlinks=False)
        os.utime(".", ns=times, dir_fd=parent)

    def _allowed_at(self, fd: int) -> bool:
        return self.mount_of(fd) in self._allowed

    def _allow(self, fd: int) -> None:
        """Refuse paths in /proc, /sys or /dev: only the image and other mounts are permitted."""
        if not self._allowed_at(fd):
            raise OSError(errno.EPERM, "nothing is mounted at or below /proc, /sys and /dev")

    # -- mounting ---------------------------------------------------------------------------

    def attach(self, mounted: int, path: str) -> None:
        """Attach a detached mount at `path`, which is created if missing; closes the mount."""
        try:
            target = self.make(path, directory=stat.S_ISDIR(os.fstat(mounted).st_mode))
            try:
                self._allow(target)
                sys_.move_mount(mounted, target)
            except OSError as error:
                why = error.strerror
                there, what = (stat.S_ISDIR(os.fstat(fd).st_mode) for fd in (target, mounted))
                if there != what:
                    kinds = {True: "a directory", False: "a file"}
                    why = f"it is {kinds[there]} in the image, what is mounted is {kinds[what]}"
                raise Refused(f"nothing can be mounted at {path}: {why}") from error
            finally:
                os.close(target)
            self._allowed.add(self.mount_of(mounted))
        finally:
            os.close(mounted)


def attach_system(root: int, name: str, mounted: int, upper: int) -> Stub | None:
    """Attach /proc, /sys or /dev to an image: it must be a real directory of its root.

    A missing directory is created; it is returned for `Root.made`.
    """
    stub = None
    try:
        try:
            target = sys_.openat2(root, name, os.O_PATH | os.O_DIRECTORY, _NO_LINKS)
        except FileNotFoundError:
            time = os.fstat(root).st_mtime_ns
            os.mkdir(name, 0o755, dir_fd=root)
            os.utime(".", ns=(time, time), dir_fd=root)
            if upper >= 0:
                made = os.stat(name, dir_fd=upper, follow_symlinks=False)
                stub = (f"/{name}", made.st_ino)
            target = sys_.openat2(root, name, os.O_PATH | os.O_DIRECTORY, _NO_LINKS)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise Refused(
                f"/{name} of the image is a link or a file, not a directory, so no command can "
                "run in it; make it a directory, or remove it from the image"
            ) from error
        raise
    try:
        sys_.move_mount(mounted, target)
    finally:
        os.close(target)
    return stub


def _link(name: str, parent: int) -> str:
    """The target of the link `name`, empty if it is not a link."""
    try:
        return os.readlink(name, dir_fd=parent)
    except OSError as error:
        if error.errno in (*_MISSING, errno.EINVAL):
            return ""
        raise
