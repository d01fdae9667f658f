"""Credentials for fetching the sources of a Dockerfile: secrets and agents passed to the build.

A Dockerfile's author can use nothing else of the user: no stored login, no key, no agent.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Final

from layercache._base.classes import field, frozen
from layercache.errors import SourceError

__all__ = ["NOTHING", "Access"]

_LONGEST: Final = 16 << 10


@frozen
class Access:
    """Secrets by name, and sockets of ssh agents by name; neither is part of a repr."""

    secrets: Mapping[str, bytes] = field(factory=dict, repr=False)
    agents: Mapping[str, str] = field(factory=dict)

    def for_url(self, host: str) -> str | None:
        """The `Authorization` header for a file at `host` (with its port if it has one).

        The secret `HTTP_AUTH_HEADER_<host>` is the value of the header,
        `HTTP_AUTH_TOKEN_<host>` a bearer token.
        """
        header = self._text(f"HTTP_AUTH_HEADER_{host}")
        if header is not None:
            return header
        token = self._text(f"HTTP_AUTH_TOKEN_{host}")
        return None if token is None else f"Bearer {token}"

    def for_git(self, host: str) -> str | None:
        """The `Authorization` header for a repository at `host`.

        The secret `GIT_AUTH_HEADER.<host>` or `GIT_AUTH_HEADER` is the value of the header,
        `GIT_AUTH_TOKEN.<host>` or `GIT_AUTH_TOKEN` a token in the form that GitHub and GitLab
        accept.
        """
        for suffix in (f".{host}", ""):
            header = self._text(f"GIT_AUTH_HEADER{suffix}")
            if header is not None:
                return header
            token = self._text(f"GIT_AUTH_TOKEN{suffix}")
            if token is not None:
                pair = base64.b64encode(f"x-access-token:{token}".encode()).decode()
                return f"basic {pair}"
        return None

    def _text(self, name: str) -> str | None:
        value = self.secrets.get(name)
        if value is None:
            return None
        text = value.decode("utf-8", "replace").strip()
        if not text.isascii() or not text.isprintable() or len(text) > _LONGEST or not text:
            raise SourceError(
                f"the secret {name} can't be sent as the value of a header: give one line of "
                f"printable ASCII, at most {_LONGEST} characters"
            )
        return text


NOTHING: Final = Access()
