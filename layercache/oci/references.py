"""Image references: `[domain/]path[:tag][@digest]`, by the grammar that Docker uses.

Source: the grammar in the package documentation of `distribution/reference`.
"""

from __future__ import annotations

import re
from typing import Final

from layercache._base.classes import evolve, frozen
from layercache._base.regex import expression
from layercache.errors import UsageError
from layercache.model.digests import Digest, check_digest

__all__ = ["DOCKER_HUB", "Reference"]

DOCKER_HUB: Final = "docker.io"
"""The default domain of a name without one."""

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = expression(rf"{_COMPONENT}(?:/{_COMPONENT})*", re.ASCII)
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = expression(
    rf"(?:{_LABEL}(?:\.{_LABEL})*|\[(?:[a-fA-F0-9:]+)\])(?::[0-9]{{1,5}})?", re.ASCII
)
_TAG = expression(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", re.ASCII)
_DIGEST_LIKE = expression(r"sha\d+:|[A-Za-z0-9+._-]+:[0-9a-fA-F]{32}", re.ASCII)
_IDENTIFIER = expression(r"[0-9a-f]{64}", re.ASCII)
_LIMIT: Final = 255
_WHOLE: Final = 1000


@frozen(kw_only=True)
class Reference:
    """Names an image. `path` is complete (`library/alpine`); `tag` or `digest` may be absent."""

    domain: str = DOCKER_HUB
    path: str
    tag: str | None = None
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """`text` with Docker's defaults for domain and `library/`, but not for the tag.

        Raises `UsageError` with the mistake and, if possible, the correct form.
        """
        if len(text) > _WHOLE:
            raise _wrong(text[:60] + "…", "it is too long")
        if not text:
            raise _wrong(text, "it is empty")
        if "://" in text:
            raise _wrong(text.split("://")[0] + "://…", "it has a scheme; write it without one")
        rest, _, digest_text = text.partition("@")
        if digest_text and not _DIGEST_LIKE.match(digest_text):
            # The text before the @ may be a password, so it is not repeated.
            raise UsageError(
                "not an image reference: user information before '@' is refused; "
                "credentials belong in the configuration of the client (docker login)"
            )
        if "@" in text and not digest_text:
            raise _wrong(text, "nothing follows '@'")
        digest: Digest | None = None
        if digest_text:
            try:
                digest = check_digest(digest_text)
            except UsageError as error:
                raise _wrong(text, str(error)) from None
        name, colon, tag_text = rest.rpartition(":")
        tag: str | None = None
        if not colon or "/" in tag_text:
            name = rest
        elif _TAG.fullmatch(tag_text):
            tag = tag_text
        else:
            raise _wrong(text, f"not a tag: {tag_text!r} (letters, digits, '_', '.', '-')")
        if _IDENTIFIER.fullmatch(name):
            raise _wrong(text, "64 hexadecimal digits are an identifier; write NAME@sha256:…")
        domain, path = _split(name)
        if not _DOMAIN.fullmatch(domain):
            raise _wrong(text, f"not a host name: {domain!r}")
        if not _PATH.fullmatch(path):
            hint = " (names are lowercase)" if _PATH.fullmatch(path.lower()) else ""
            raise _wrong(text, f"not a name: {path!r}{hint}")
        if len(path) > _LIMIT:
            raise _wrong(text[:60] + "…", f"the name is longer than {_LIMIT} characters")
        return cls(domain=domain, path=path, tag=tag, digest=digest)

    @property
    def name(self) -> str:
        """Domain and path."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar(self) -> str:
        """The short form for people, without Docker's defaults."""
        short = self.path.removeprefix("library/")
        known = _split(short) == (self.domain, self.path)
        return (short if known else self.name) + self._suffix()

    def tagged(self) -> Reference:
        """With the tag `latest` if there is neither a tag nor a digest."""
        if self.tag is None and self.digest is None:
            return evolve(self, tag="latest")
        return self

    def pinned(self, digest: Digest) -> Reference:
        """The same name at `digest`; the tag is kept for people."""
        return evolve(self, digest=digest)

    def _suffix(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return tag + (f"@{self.digest}" if self.digest else "")

    def __str__(self) -> str:
        return self.name + self._suffix()


def _split(name: str) -> tuple[str, str]:
    """Domain and path: the first component is a domain if it looks like one."""
    first, slash, rest = name.partition("/")
    is_domain = slash and (
        "." in first or ":" in first or first == "localhost" or first != first.lower()
    )
    domain, path = (first, rest) if is_domain else (DOCKER_HUB, name)
    if domain in {DOCKER_HUB, "index.docker.io"}:
        domain = DOCKER_HUB
        if "/" not in path:
            path = "library/" + path
    return domain, path


def _wrong(text: str, why: str) -> UsageError:
    return UsageError(f"{text!r} is not an image reference: {why}")
