"""SSH agents for commands: a socket of the step's own, which permits listing and signing only.

The command never gets the host's socket itself: its own socket has the owner and mode that the
mount requests, is closed with the step, and passes two requests on: to list the identities and to
sign. All other requests (to add and remove keys, to lock the agent, extensions) are answered with
failure, as by BuildKit and by a restricted forwarded agent.
"""

from __future__ import annotations

import os
import socket
import stat
import threading

from layercache.errors import BuildError

__all__ = ["AgentProxy"]

# draft-ietf-sshm-ssh-agent
_REQUEST_IDENTITIES = 11
_SIGN_REQUEST = 13
_PASSED = (_REQUEST_IDENTITIES, _SIGN_REQUEST)
_FAILURE = b"\x05"

_MAX_MESSAGE = 256 * 1024
"""Bytes of a message; more is what OpenSSH's agent does not take either."""

_NAME = "layercache-ssh"
_MAX_CLIENTS = 32
"""Connections at once; further ones wait."""


class AgentProxy:
    """Listens at `path`, whose directory exists, and forwards permitted requests to `agent`."""

    def __init__(self, path: str, agent: str) -> None:
        _check_socket(agent)
        self._agent = agent
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # The name of a socket is at most 107 bytes: go through a descriptor of its directory.
        directory = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._listener.bind(f"/proc/self/fd/{directory}/{os.path.basename(path)}")
        except BaseException:
            self._listener.close()
            raise
        finally:
            os.close(directory)
        self._listener.listen(16)
        self._lock = threading.Lock()
        self._free = threading.Semaphore(_MAX_CLIENTS)
        self._closed = False
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept, name=_NAME, daemon=True)
        self._accepting.start()

    def close(self) -> None:
        """End all connections and the listener; returns when all of its threads have ended."""
        with self._lock:
            self._closed = True
            for end in (self._listener, *self._open):
                _shut(end)
        self._free.release()  # for the one who waits until a client leaves
        self._accepting.join()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            self._free.acquire()
            try:
                client, _ = self._listener.accept()
            except OSError:
                if self._closed:
                    return
                self._free.release()
                continue  # it left while it waited
            thread = threading.Thread(target=self._serve, args=(client,), name=_NAME, daemon=True)
            with self._lock:
                if self._closed:
                    client.close()
                    return
                self._open.add(client)
                self._threads = [one for one in self._threads if one.is_alive()]
                self._threads.append(thread)
                thread.start()

    def _serve(self, client: socket.socket) -> None:
        agent = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with self._lock:
            self._open.add(agent)
            if self._closed:
                _shut(agent)
        try:
            agent.connect(self._agent)
            _converse(client, agent)
        except OSError:
            pass  # to the command: an agent that hangs up
        finally:
            with self._lock:
                self._open -= {client, agent}
                client.close()
                agent.close()
            self._free.release()


def _check_socket(agent: str) -> None:
    """Refuse a file, such as a key: a command would see only an agent that hangs up."""
    if os.path.exists(agent) and not stat.S_ISSOCK(os.stat(agent).st_mode):
        raise BuildError(
            f"RUN --mount=type=ssh needs the socket of an SSH agent, and {agent} is none: add a "
            "key to an agent with ssh-add (a key itself serves ADD of a Git repository only)"
        )


def _converse(client: socket.socket, agent: socket.socket) -> None:
    """Answer a client's requests, one after the other, until one side closes."""
    while (request := _receive(client)) is not None:
        if request[0] not in _PASSED:
            _send(client, _FAILURE)
            continue
        _send(agent, request)
        answer = _receive(agent)
        if answer is None:
            return
        _send(client, answer)


def _receive(source: socket.socket) -> bytes | None:
    """The next message without its length; None at the end, or if it is not an agent's message."""
    head = _exactly(source, 4)
    size = int.from_bytes(head, "big")
    if len(head) < 4 or not 0 < size <= _MAX_MESSAGE:
        return None
    message = _exactly(source, size)
    return message if len(message) == size else None


def _send(target: socket.socket, message: bytes) -> None:
    target.sendall(len(message).to_bytes(4, "big") + message)


def _exactly(source: socket.socket, size: int) -> bytes:
    """The next `size` bytes, fewer at the end."""
    found = bytearray()
    while len(found) < size and (part := source.recv(size - len(found))):
        found += part
    return bytes(found)


def _shut(end: socket.socket) -> None:
    """Wake up the thread that waits for `end`."""
    try:
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # it isn't connected, or not any more
