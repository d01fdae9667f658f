"""Builds without a host: copies only, so that no executor is needed."""

from __future__ import annotations

from layercache import Builder, Dockerfile
from layercache.builds.result import BuildResult

FILES = {"package.json": "{}", "server.js": "1", "README.md": "hello"}
TEXT = 'FROM scratch\nCOPY package.json /\nCOPY . /app\nCMD ["node", "server.js"]\n'


def build(builder: Builder, files: dict[str, str], text: str = TEXT) -> BuildResult:
    """Build `text` over `files`."""
    return builder.build(Dockerfile.parse(text), context=files, project="reports")
