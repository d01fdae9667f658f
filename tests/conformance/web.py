"""The web server of a scenario: files with validators that can be changed between builds."""

from __future__ import annotations

import functools
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["FileServer", "Web"]


class Web:
    """Serves `pages` on a loopback port; `requests` lists what was asked."""

    def __init__(self, pages: Mapping[str, Any]) -> None:
        self.pages: dict[str, dict[str, Any]] = {url: dict(page) for url, page in pages.items()}
        self.requests: list[str] = []
        web = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.answer(True)

            def do_HEAD(self) -> None:
                self.answer(False)

            def answer(self, body: bool) -> None:
                url = self.path.split("?", 1)[0]
                web.requests.append(f"{self.command} {self.path}")
                page = web.pages.get(self.path, web.pages.get(url))
                if page is None:
                    self.send_response(404)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                content = str(page.get("content", "")).encode()
                etag = page.get("etag")
                if etag and self.headers.get("If-None-Match") == etag:
                    self.send_response(304)
                    self.end_headers()
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                if etag:
                    self.send_header("ETag", etag)
                if page.get("last_modified"):
                    self.send_header("Last-Modified", page["last_modified"])
                for name, value in (page.get("headers") or {}).items():
                    self.send_header(name, value)
                self.end_headers()
                if body:
                    self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        # A short poll: closing waits for the end of one.
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.01,), daemon=True
        )
        self._thread.start()

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def mutate(self, operation: Mapping[str, Any]) -> None:
        """Apply one `http` operation."""
        url = operation["url"]
        if operation.get("delete"):
            self.pages.pop(url, None)
            return
        page = self.pages.setdefault(url, {})
        for name in operation.get("unset", ()):
            page.pop(name, None)
        page.update({k: v for k, v in operation.items() if k not in {"op", "url", "unset"}})

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class FileServer:
    """Serves the files below a directory on a loopback port; a context manager."""

    def __init__(self, root: str) -> None:
        class Handler(SimpleHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

        handler = functools.partial(Handler, directory=root)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.01,), daemon=True
        )
        self._thread.start()

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> FileServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
