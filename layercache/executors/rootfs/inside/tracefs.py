"""A file system that records its requests: the lower directory of a traced step.

Speaks the kernel's FUSE protocol (linux/fuse.h, version 7.31) over /dev/fuse, read-only, in one
process for each traced step, outside of the step's namespaces. Behind it is an overlay of the
layers of the step's parent, which never changes; so the kernel's caches stay valid for ever, and
each *distinct* question arrives here once, however often it is asked. The questions are a function
of what the command does and of the answers: equal answers on another parent mean the same
questions, and the same result.

Every path has an inode of its own here, even further names of one file, so that each question is
about a path. Bits are those of `layercache.model.observations`; this module imports nothing for
them.
"""

from __future__ import annotations

import _socket
import errno
import fcntl
import os
import select
import signal
import stat
import struct

from layercache.executors.rootfs.inside import mounts as _mounts
from layercache.executors.rootfs.inside import syscalls as sys_
from layercache.executors.rootfs.inside import wire as _wire

__all__ = [
    "ABSENT",
    "ATTRIBUTES",
    "CONTENT",
    "FOUND",
    "LINK",
    "LISTING",
    "METADATA",
    "SIZE",
    "TraceFS",
    "main",
    "mount_behind",
    "mount_traced",
    "report",
    "serve",
]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

ABSENT = 1
FOUND = 2
METADATA = 4
SIZE = 8
LINK = 16
CONTENT = 32
LISTING = 64
ATTRIBUTES = 128

_LOOKUP, _FORGET, _GETATTR, _READLINK = 1, 2, 3, 5
_OPEN, _READ, _STATFS, _GETXATTR, _LISTXATTR, _FLUSH = 14, 15, 17, 22, 23, 25
_INIT, _OPENDIR, _READDIR, _ACCESS = 26, 27, 28, 34
_INTERRUPT, _DESTROY, _IOCTL, _POLL, _BATCH_FORGET, _LSEEK = 36, 38, 39, 40, 42, 46
_STATX, _SYNCFS, _FSYNC, _FSYNCDIR, _BMAP, _READDIRPLUS = 52, 50, 20, 30, 37, 44

_SILENT = (_FORGET, _BATCH_FORGET, _INTERRUPT)
"""What is not answered; nothing here is ever forgotten."""

_NOT_HERE = (_OPEN, _OPENDIR, _ACCESS, _FLUSH, _IOCTL, _POLL, _LSEEK, _STATX, _SYNCFS, _FSYNC,
             _FSYNCDIR, _BMAP, _READDIRPLUS)  # fmt: skip
"""What this file system has no need of: the kernel then does it by itself, or by what is here.
That opening is among them means that only reading counts."""

# Asynchronous reads, no open, parallel lookups, big requests, cached links, no opendir.
_FLAGS = 1 << 0 | 1 << 17 | 1 << 18 | 1 << 22 | 1 << 23 | 1 << 24
_OPENLESS = 1 << 17 | 1 << 24

_HEAD = struct.Struct("<IQQ")
"""Of the head of a request what is used: after its length come operation, number and inode."""
_HEAD_SIZE = 40
_ANSWER = struct.Struct("<IiQ")
_ENTRY = struct.Struct("<QQQQII")
_ATTR = struct.Struct("<6Q10I")
_ATTR_HEAD = struct.Struct("<QII")
_READ_IN = struct.Struct("<QQI")
_INIT_IN = struct.Struct("<4I")
_INIT_OUT = struct.Struct("<4I2H2I2H2IH22x")
_STATFS_OUT = struct.Struct("<5Q4I24x")
_DIRENT = struct.Struct("<QQII")

_BUFFER = 1 << 16
_MAX_WRITE = 4096
_PAGES = 256
_EVER = 1 << 30
"""Seconds that the kernel may keep an answer: for as long as a step can run."""
_MAX_FILES = 64
_KEPT = (b"security.capability", b"user.")
"""Extended attributes that a layer holds (`layers.capture`); ACLs are refused before."""

MAX_PATHS = 100_000
MAX_BYTES = 16 << 20
"""Paths that are noted for one step, and their length altogether. More are no use (what is kept
has a bound below this one), and a command could ask for names without end."""

_WORTH_ASKING = (errno.ENOENT, errno.ENOTDIR, errno.ENODATA, errno.ERANGE, errno.ENOSYS,
                 errno.ENOTTY, errno.EINVAL)  # fmt: skip
"""Errors that are answers; any other means that the tracer does not see what it should."""


class TraceFS:
    """Answers the requests of one connection and records them in `seen` (path → bits).

    `root` is an open directory, `device` the connection. `attributes` tells whether any entry in it
    has extended attributes. `trouble` is the first unexpected event: then the observations are
    discarded.
    """

    def __init__(self, root: int, device: int, *, attributes: bool) -> None:
        self._root = root
        self._device = device
        self._attributes = attributes
        self._paths: list[bytes] = [b"", b""]
        self._numbers: dict[bytes, int] = {b"": 1}
        self._files: dict[int, int] = {}
        self._listings: dict[int, list[tuple[bytes, int, int]]] = {}
        self.seen: dict[bytes, int] = {}
        self.requests = 0
        self.full = False
        """Whether more was asked than is noted: then nothing is, but all is answered."""
        self.trouble = ""
        self._bytes = 0
        self.ended = False
        self._handlers: dict[int, Callable[[int, memoryview], bytes]] = {
            _LOOKUP: self._lookup,
            _GETATTR: self._getattr,
            _READLINK: self._readlink,
            _READ: self._read,
            _READDIR: self._readdir,
            _STATFS: self._statfs,
            _GETXATTR: self._getxattr,
            _LISTXATTR: self._listxattr,
            _INIT: self._init,
        }
        self._buffer = bytearray(_BUFFER)
        self._into = (self._buffer,)
        self._view = memoryview(self._buffer)

    # -- the connection ---------------------------------------------------------------------

    def answer_one(self) -> None:
        """Answer one request; sets `ended` when the connection is over."""
        try:
            size = os.readv(self._device, self._into)
        except OSError as error:
            if error.errno == errno.ENODEV:
                self.ended = True
            elif error.errno not in (errno.ENOENT, errno.EINTR, errno.EAGAIN):
                self._fault(f"reading requests: {error.strerror}")
                self.ended = True
            return
        opcode, unique, node = _HEAD.unpack_from(self._buffer, 4)
        if opcode in _SILENT:
            return
        self.requests += 1
        code = 0
        body = b""
        handler = self._handlers.get(opcode)
        if handler is not None:
            try:
                body = handler(node, self._view[_HEAD_SIZE:size])
            except OSError as error:
                code = error.errno or errno.EIO
                if code not in _WORTH_ASKING:
                    self._fault(f"request {opcode}: {error.strerror}")
        elif opcode == _DESTROY:
            self.ended = True
        else:
            code = errno.ENOSYS
            if opcode not in _NOT_HERE:
                # The kernel would not ask this of a read-only file system.
                self._fault(f"request {opcode} is not known")
        try:
            os.writev(self._device, (_ANSWER.pack(16 + len(body), -code, unique), body))
        except OSError as error:
            if error.errno != errno.ENOENT:  # that is: who asked has been killed
                self._fault(f"answering request {opcode}: {error.strerror}")

    def _fault(self, what: str) -> None:
        self.trouble = self.trouble or what

    def note(self, path: bytes, bit: int) -> None:
        """Record a question."""
        bits = self.seen.get(path)
        if bits is None:
            if self.full:
                return
            self._bytes += len(path)
            if len(self.seen) >= MAX_PATHS or self._bytes > MAX_BYTES:
                self.full = True
                self.seen.clear()
                return
            bits = 0
        self.seen[path] = bits | bit

    def close(self) -> None:
        """Close all descriptors."""
        for fd in self._files.values():
            os.close(fd)
        self._files.clear()

    # -- requests ---------------------------------------------------------------------------

    def _init(self, node: int, data: memoryview) -> bytes:
        major, _minor, readahead, flags = _INIT_IN.unpack_from(data)
        if major != 7 or flags & _OPENLESS != _OPENLESS:
            self._fault("this kernel's FUSE is too old")
        return _INIT_OUT.pack(
            7, 31, readahead, flags & _FLAGS, 16, 12, _MAX_WRITE, 1, _PAGES, 0, 0, 0, 0
        )

    def _lookup(self, node: int, data: memoryview) -> bytes:
        name = bytes(data[:-1])
        parent = self._paths[node]
        path = parent + b"/" + name if parent else name
        try:
            info = os.stat(path, dir_fd=self._root, follow_symlinks=False)
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                # Not found, as the file system says it: no layer can hold it.
                self.note(path, ABSENT)
                raise OSError(errno.ENOENT, "no such file") from error
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                raise
            self.note(path, ABSENT)
            return _ENTRY.pack(0, 0, _EVER, 0, 0, 0) + bytes(_ATTR.size)
        # All attributes come with the entry, and the kernel may show them without asking: the size
        # to FIONREAD, everything to statx(AT_STATX_DONT_SYNC).
        sized = stat.S_ISREG(info.st_mode) or stat.S_ISLNK(info.st_mode)
        self.note(path, FOUND | METADATA | SIZE if sized else FOUND | METADATA)
        number = self._numbers.get(path)
        if number is None:
            number = self._numbers[path] = len(self._paths)
            self._paths.append(path)
        return _ENTRY.pack(number, 0, _EVER, _EVER, 0, 0) + _attributes(info)

    def _getattr(self, node: int, data: memoryview) -> bytes:
        path = self._paths[node]
        info = os.stat(path or b".", dir_fd=self._root, follow_symlinks=False)
        self.note(path, METADATA)
        return _ATTR_HEAD.pack(_EVER, 0, 0) + _attributes(info)

    def _readlink(self, node: int, data: memoryview) -> bytes:
        path = self._paths[node]
        self.note(path, LINK)
        return os.readlink(path, dir_fd=self._root)

    def _read(self, node: int, data: memoryview) -> bytes:
        _, offset, size = _READ_IN.unpack_from(data)
        self.note(self._paths[node], CONTENT)
        fd = self._files.get(node)
        if fd is None:
            if len(self._files) >= _MAX_FILES:
                os.close(self._files.pop(next(iter(self._files))))
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
            fd = self._files[node] = os.open(self._paths[node], flags, dir_fd=self._root)
        return os.pread(fd, size, offset)

    def _readdir(self, node: int, data: memoryview) -> bytes:
        _, offset, size = _READ_IN.unpack_from(data)
        self.note(self._paths[node], LISTING)
        rows = self._listings.get(node)
        if rows is None:
            rows = self._listings[node] = self._list(node)
        out = bytearray()
        for place in range(offset, len(rows)):
            name, number, kind = rows[place]
            length = _DIRENT.size + len(name)
            if len(out) + length + 7 > size:
                break
            out += _DIRENT.pack(number, place + 1, len(name), kind) + name
            out += bytes(-length % 8)
        else:
            self._listings.pop(node, None)
        return bytes(out)

    def _list(self, node: int) -> list[tuple[bytes, int, int]]:
        """Name, inode number and type of everything in a directory, sorted by name."""
        path = self._paths[node]
        fd = os.open(path or b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._root)
        try:
            own = os.fstat(fd).st_ino
            rows = []
            with os.scandir(fd) as entries:
                for entry in entries:
                    rows.append((os.fsencode(entry.name), entry.inode(), _kind(entry)))
        finally:
            os.close(fd)
        rows.sort()
        return [(b".", own, 4), (b"..", own, 4), *rows]

    def _statfs(self, node: int, data: memoryview) -> bytes:
        # Free space is that of the upper directory; this is the lower one, which has none.
        return _STATFS_OUT.pack(0, 0, 0, 0, 0, 4096, 255, 4096, 0)

    # -- extended attributes ----------------------------------------------------------------

    def _getxattr(self, node: int, data: memoryview) -> bytes:
        size = struct.unpack_from("<I", data)[0]
        name = bytes(data[8:]).rstrip(b"\0")
        # ENOSYS would spare the question that comes with every program that is started, but is
        # another answer than an image gives that has attributes elsewhere.
        if not self._attributes:
            raise OSError(errno.ENODATA, "there are none")
        path = self._paths[node]
        if not name.startswith(_KEPT) or name.startswith(b"user.overlay."):
            raise OSError(errno.ENODATA, "no layer holds that")
        self.note(path, ATTRIBUTES)
        value = os.getxattr(self._place(path), os.fsdecode(name), follow_symlinks=False)
        return _sized(size, value)

    def _listxattr(self, node: int, data: memoryview) -> bytes:
        size = struct.unpack_from("<I", data)[0]
        if not self._attributes:
            return _sized(size, b"")
        path = self._paths[node]
        self.note(path, ATTRIBUTES)
        names = [os.fsencode(n) for n in os.listxattr(self._place(path), follow_symlinks=False)]
        kept = [n for n in names if n.startswith(_KEPT) and not n.startswith(b"user.overlay.")]
        return _sized(size, b"".join(name + b"\0" for name in sorted(kept)))

    def _place(self, path: bytes) -> bytes:
        return b"/proc/self/fd/%d/%s" % (self._root, path)


def _kind(entry: os.DirEntry[str]) -> int:
    """The type of a directory entry, as `struct dirent` has it."""
    if entry.is_symlink():
        return 10
    if entry.is_dir(follow_symlinks=False):
        return 4
    if entry.is_file(follow_symlinks=False):
        return 8
    return stat.S_IFMT(entry.stat(follow_symlinks=False).st_mode) >> 12


def _sized(size: int, value: bytes) -> bytes:
    if size == 0:
        return struct.pack("<II", len(value), 0)
    if len(value) > size:
        raise OSError(errno.ERANGE, "too long")
    return value


def _attributes(info: os.stat_result) -> bytes:
    """A `fuse_attr`; the times of access and change are those of modification."""
    seconds, nanoseconds = divmod(info.st_mtime_ns, 10**9)
    major, minor = os.major(info.st_rdev), os.minor(info.st_rdev)
    device = minor & 0xFF | major << 8 | (minor & ~0xFF) << 12
    return _ATTR.pack(
        info.st_ino, info.st_size, info.st_blocks, *(seconds & (1 << 64) - 1,) * 3,
        nanoseconds, nanoseconds, nanoseconds, info.st_mode, info.st_nlink,
        info.st_uid, info.st_gid, device, 4096, 0,
    )  # fmt: skip


# -- mounting -----------------------------------------------------------------------------------


def mount_behind(lower: Sequence[str], *, userxattr: bool) -> int:
    """The layers as one read-only tree, detached; an open directory."""
    if len(lower) == 1:
        return os.open(lower[0], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    mounted = _mounts.layers(lower, userxattr=userxattr)
    try:
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=mounted)
    finally:
        os.close(mounted)


def mount_traced(device: int, mode: int, target: str) -> None:
    """Mount the connection `device` at `target`, whose root directory has `mode`."""
    options = (
        ("fd", str(device)),
        ("rootmode", oct(mode)[2:]),
        ("user_id", "0"),
        ("group_id", "0"),
        ("allow_other", None),
        ("ro", None),  # or every read would make the kernel ask for the time of access
    )
    attributes = sys_.MOUNT_ATTR_RDONLY
    _mounts.attach(_mounts.filesystem("fuse", options, attributes), target)


# -- processes ----------------------------------------------------------------------------------


def main(channel: int) -> None:
    """Serve until the socket `channel` is closed: each descriptor received through it is a stream
    whose first frame tells a new process what to serve.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    sock = _socket.socket(fileno=channel)
    while True:
        data, ancillary, _, _ = sock.recvmsg(16, _socket.CMSG_SPACE(4 * 4))
        if not data:
            return
        for level, kind, content in ancillary:
            if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
                for fd in memoryview(content).cast("i").tolist():
                    os.set_inheritable(fd, False)
                    _fork(sock, fd)


def _fork(sock: _socket.socket, fd: int) -> None:
    if os.fork() == 0:
        try:
            sys_.prctl(sys_.PR_SET_PDEATHSIG, 9)
            sock.close()
            serve(_socket.socket(fileno=fd))
        finally:
            os._exit(0)
    os.close(fd)


def serve(stream: _socket.socket) -> None:
    """Execute the order in the first frame of `stream`, report the observations at the second.

    Any failure is reported as `{"trouble": text}`; the step then runs untraced.
    """
    spec = _wire.receive(stream)
    if spec is None:
        return
    try:
        root = mount_behind(spec["lower"], userxattr=spec["userxattr"])
        device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        files = TraceFS(root, device, attributes=spec["attributes"])
        mount_traced(device, os.fstat(root).st_mode, spec["at"])
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        _wire.send(stream, {"trouble": f"{error.strerror}{where}"})
        return
    try:
        # The mount's first request is answered before anybody needs it.
        files.answer_one()
        _wire.send(stream, {"trouble": files.trouble})
        _until_told(stream, files)
    finally:
        sys_.umount(spec["at"], sys_.MNT_DETACH)
        files.close()
    _wire.send(stream, report(files))


def report(files: TraceFS) -> dict[str, Any]:
    """The observations of a connection."""
    return {
        "trouble": files.trouble,
        "full": files.full,
        "requests": files.requests,
        "cpu": int(sum(os.times()[:2]) * 1000),
        "paths": list(files.seen),
        "bits": bytes(files.seen.values()),
    }


def _until_told(stream: _socket.socket, files: TraceFS) -> None:
    """Answer requests until the stream reports that the step is gone.

    The report arrives as a signal, so that the process only has to wait for requests. After it, no
    question can matter to the step any more.
    """
    told = stream.fileno()

    def stop(number: int, frame: object) -> None:
        raise _Told

    signal.signal(signal.SIGIO, stop)
    try:
        fcntl.fcntl(told, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(told, fcntl.F_SETFL, fcntl.fcntl(told, fcntl.F_GETFL) | os.O_ASYNC)
        waiting = select.poll()
        waiting.register(told, select.POLLIN)
        if not waiting.poll(0):
            while not files.ended:
                files.answer_one()
            files.trouble = files.trouble or "the connection ended before the step"
            waiting.poll()
    except _Told:
        pass
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    _wire.receive(stream)


class _Told(Exception):
    """The step is gone."""
