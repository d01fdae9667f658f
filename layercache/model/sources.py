"""Sources as values: external inputs that a recipe names. The engine reads them."""

from __future__ import annotations

from layercache._base.classes import frozen
from layercache.model.digests import Digest
from layercache.model.instruction import Field

__all__ = ["ContextSource", "GitSource", "UrlSource"]


@frozen
class ContextSource:
    """A build context; `""` is the main one, others come from `--build-context`."""

    context: str = ""

    @property
    def name(self) -> str:
        return f"build context {self.context!r}" if self.context else "build context"

    def definition(self) -> tuple[Field, ...]:
        return (Field("context", self.context),)


@frozen
class UrlSource:
    """One file behind a URL, fetched once per build and keyed by its bytes.

    With `checksum`, the key needs no request: the file must have this digest.
    """

    url: str
    checksum: Digest | None = None

    @property
    def name(self) -> str:
        return self.url

    def definition(self) -> tuple[Field, ...]:
        return (Field("url", self.url), Field("checksum", self.checksum))


@frozen
class GitSource:
    """A Git repository at a reference, with a subdirectory; keyed by the tree checked out."""

    url: str
    reference: str = ""
    subdirectory: str = ""
    keep_git_dir: bool = False
    checksum: str | None = None
    submodules: bool = True

    @property
    def name(self) -> str:
        return self.url

    def definition(self) -> tuple[Field, ...]:
        more = () if self.submodules else (Field("submodules", False),)
        return (
            Field("git", self.url),
            Field("reference", self.reference),
            Field("subdirectory", self.subdirectory),
            Field("keep git dir", self.keep_git_dir),
            Field("checksum", self.checksum),
            *more,
        )
