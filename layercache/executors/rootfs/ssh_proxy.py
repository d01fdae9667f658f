"""SSH agents for commands: a socket of the step's own that is connected through to the agent.

The command never gets the host's socket itself: the one it sees has the owner and mode that the
mount asks for, and is dead when the step is.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import threading

__all__ = ["AgentProxy"]

_CHUNK = 1 << 16


class AgentProxy:
    """Listens at `path`, whose directory exists, and connects each client to `agent`."""

    def __init__(self, path: str, agent: str) -> None:
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
        self._closing, self._wake = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, name="layercache-ssh", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End all connections and the listener."""
        self._wake.close()
        self._thread.join()
        self._listener.close()
        self._closing.close()

    def _serve(self) -> None:
        """One thread for all connections: agents speak in short messages."""
        peers: dict[socket.socket, socket.socket] = {}
        with selectors.DefaultSelector() as selector, contextlib.ExitStack() as stack:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._closing, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    source = key.fileobj
                    assert isinstance(source, socket.socket)
                    if source is self._closing:
                        return
                    if source is self._listener:
                        for one, other in self._connect(stack):
                            peers[one] = other
                            selector.register(one, selectors.EVENT_READ)
                    elif source in peers and not _pass_on(source, peers[source]):
                        for end in (source, peers[source]):
                            selector.unregister(end)
                            peers.pop(end)
                            end.close()

    def _connect(
        self, stack: contextlib.ExitStack
    ) -> tuple[tuple[socket.socket, socket.socket], ...]:
        try:
            client, _ = self._listener.accept()
        except OSError:
            return ()  # it left while it waited
        stack.callback(client.close)
        agent = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        stack.callback(agent.close)
        try:
            agent.connect(self._agent)
        except OSError:
            client.close()  # to the command: an agent that hangs up
            agent.close()
            return ()
        return ((client, agent), (agent, client))


def _pass_on(source: socket.socket, target: socket.socket) -> bool:
    try:
        data = source.recv(_CHUNK)
        if data:
            target.sendall(data)
    except OSError:
        return False
    return bool(data)
