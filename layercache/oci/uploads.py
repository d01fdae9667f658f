"""Upload of a blob to a repository: mounted where the registry has it, otherwise sent.

An upload that fails on its way is begun again from its POST: after a failed PUT a session may be
anything, and registries forget the sessions of a node that restarts.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, BinaryIO, Final

from layercache._base.classes import frozen
from layercache.errors import SourceError, Unreachable
from layercache.model.digests import Digest
from layercache.oci.complaints import complaint
from layercache.oci.statuses import ACCEPTED, STORED
from layercache.oci.streams import CHUNK

if TYPE_CHECKING:
    from layercache.oci.transport import Response, Transport

__all__ = ["Repository", "expect"]

_LOST: Final = frozenset({404, 416})
"""Statuses for an upload session that the registry does not know any more."""


def expect(answer: Response, statuses: frozenset[int], what: str) -> None:
    """Raise `SourceError`, with the registry's words, unless the status is one of these."""
    if answer.status not in statuses:
        said = complaint(answer) if answer.status >= 400 else ""
        answer.close()
        raise SourceError(f"{what}: the registry answers with status {answer.status}{said}")


@frozen(eq=False)
class Repository:
    """A repository that is written to: `path` at the registry `host`."""

    transport: Transport
    host: str
    path: str

    def request(
        self,
        method: str,
        path: str,
        data: bytes | Iterator[bytes] | None = None,
        *,
        size: int = 0,
        mount_from: str | None = None,
        retry: bool = True,
    ) -> Response:
        """The response to a request below this repository, or for a whole URL.

        `size` is the length of an iterator of bytes; `mount_from` is a further repository that
        must be readable.
        """
        headers = {}
        if data is not None:
            headers["Content-Length"] = str(len(data) if isinstance(data, bytes) else size)
            headers["Content-Type"] = "application/octet-stream"
        where = path if ":" in path.partition("/")[0] else f"{self.path}/{path}"
        return self.transport.request(
            method,
            self.host,
            where,
            repository=self.path,
            actions="pull,push",
            reads=mount_from,
            headers=headers,
            data=data,
            retry=retry,
        )

    def has(self, digest: Digest) -> bool:
        """Whether the repository has a blob: one HEAD."""
        with self.request("HEAD", f"blobs/{digest}") as answer:
            return answer.status == 200

    def upload(
        self,
        digest: Digest,
        size: int,
        opened: Callable[[], BinaryIO],
        *,
        mount_from: str | None = None,
    ) -> None:
        """Upload a blob that the repository lacks.

        `opened` gives its `size` bytes from the beginning, each time it is called; `mount_from`
        is a repository of the same registry that has the blob. Raises `SourceError`.
        """
        what = f"upload of {digest} to {self.host}/{self.path}"
        if mount_from is not None and mount_from != self.path:
            location = self._mount(digest, mount_from)
            if location == "":
                return
        else:
            location = None
        attempts = self.transport.attempts
        waits = self.transport.waits()
        for attempt in range(attempts):
            try:
                if attempt and self.has(digest):
                    return  # only the answer was lost
                if location is None:
                    location = self._begin(what)
                self._put(location, digest, size, opened, what)
                return
            except Unreachable as error:
                location = None
                if attempt + 1 == attempts or not waits.pause(attempt, error.retry_after):
                    raise

    def _mount(self, digest: Digest, mount_from: str) -> str | None:
        """Mount the blob: "" if that worked, otherwise the place to upload to, if there is one.

        A refusal of any kind leaves the plain upload, which is as good.
        """
        query = urllib.parse.urlencode({"mount": digest, "from": mount_from}, safe=":/")
        try:
            with self.request(
                "POST", f"blobs/uploads/?{query}", b"", mount_from=mount_from, retry=False
            ) as answer:
                if answer.status == 201:
                    return ""
                location = answer.headers.get("Location")
                if answer.status in ACCEPTED and location:
                    return _joined(answer.url, location)
        except SourceError:
            pass
        return None

    def _begin(self, what: str) -> str:
        with self.request("POST", "blobs/uploads/", b"") as answer:
            expect(answer, ACCEPTED | {201}, what)
            location = answer.headers.get("Location")
            if not location:
                raise SourceError(f"{what}: the registry names no address to send it to")
            return _joined(answer.url, location)

    def _put(
        self, location: str, digest: Digest, size: int, opened: Callable[[], BinaryIO], what: str
    ) -> None:
        url = f"{location}{'&' if '?' in location else '?'}digest={digest}"
        with opened() as content:
            data = iter(lambda: content.read(CHUNK), b"") if size else b""
            with self.request("PUT", url, data, size=size, retry=False) as answer:
                if answer.status in _LOST:
                    said = complaint(answer)
                    raise Unreachable(f"{what}: the registry forgot the upload{said}")
                expect(answer, STORED, what)


def _joined(url: str, location: str) -> str:
    try:
        return urllib.parse.urljoin(url, location)
    except ValueError as error:
        raise SourceError(
            "the address that the registry gives for an upload is not a URL"
        ) from error
