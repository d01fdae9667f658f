"""An OCI registry as a backend, which it sees as artifacts.

Blobs are the registry's own blobs. Every object has a manifest under a tag made from its name;
a small object's bytes are inside it, so that reading or writing it is one request; a large one's
are the manifest's layer, so that the registry's own collection keeps them.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import json
import re
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, Final, cast

from layercache._os.side_by_side import side_by_side
from layercache.errors import CacheError, NotFound, SourceError
from layercache.http.headers import next_link
from layercache.model.digests import Digest, sha256
from layercache.oci.references import Reference
from layercache.oci.statuses import READ, STORED
from layercache.store.backend import BatchReader, ObjectInfo, check_name
from layercache.store.backends.read_each import read_each

if TYPE_CHECKING:
    from layercache.oci.transport import Response, Transport

__all__ = ["RegistryBackend"]

_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
_ARTIFACT: Final = "application/vnd.layercache.object.v1"
_EMPTY: Final = b"{}"
_EMPTY_TYPE: Final = "application/vnd.oci.empty.v1+json"
_INSIDE: Final = 2 << 20
"""Bytes that fit into a manifest; registries take 4 MiB, and base64 adds a third."""

_MANIFEST_LIMIT: Final = 4 << 20
_NAME: Final = "vnd.layercache.name"
_SCOPE: Final = "vnd.layercache.scope"
_STAMP: Final = "vnd.layercache.stamp"
_CONTENT: Final = "vnd.layercache.content"
_TAGS: Final = "layercache-"
_BLOB: Final = re.compile(r"(?:.*/)?blobs/sha256/[0-9a-f]{2}/([0-9a-f]{64})")
_DIGEST: Final = re.compile(r"sha(?:256|512):[0-9a-f]{64,128}", re.ASCII)
_CHUNK: Final = 1 << 20
_THREADS: Final = 16
_LISTING_LIMIT: Final = 16 << 20
_PAGES: Final = 10_000


class RegistryBackend(BatchReader):
    """Objects in the repository that `reference` names; its tag keeps several caches apart.

    `insecure` allows http and certificates that can't be verified (always so for this machine).
    Stamps are this machine's time: registries tell none.
    """

    def __init__(self, reference: str, *, insecure: bool = False, timeout: float = 10.0) -> None:
        self.reference = Reference.parse(reference)
        self._scope = self.reference.tag or ""
        self._insecure = insecure
        self._timeout = timeout
        self._guard = threading.Lock()
        self._transport: Transport | None = None
        self._uploaded: set[Digest] = set()

    def __getstate__(self) -> dict[str, Any]:
        return {
            "reference": str(self.reference),
            "insecure": self._insecure,
            "timeout": self._timeout,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(  # type: ignore[misc]
            state["reference"], insecure=state["insecure"], timeout=state["timeout"]
        )

    def __repr__(self) -> str:
        return f"RegistryBackend({str(self.reference)!r})"

    def _client(self) -> Transport:
        with self._guard:
            if self._transport is None:
                from layercache.oci.transport import Transport

                hosts = [self.reference.domain] if self._insecure else []
                self._transport = Transport(insecure=hosts, timeout=self._timeout, attempts=2)
            return self._transport

    def _request(
        self,
        method: str,
        path: str,
        *,
        data: bytes | Iterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        write: bool = False,
    ) -> Response:
        where = path if ":" in path.partition("/")[0] else f"{self.reference.path}/{path}"
        try:
            return self._client().request(
                method,
                self.reference.domain,
                where,
                repository=self.reference.path,
                actions="pull,push" if write else "pull",
                headers=headers,
                data=data,
            )
        except SourceError as error:
            raise CacheError(f"the cache {self!r}: {error}") from error

    def _tag(self, name: str) -> str:
        text = f"{self._scope}\0{check_name(name)}".encode()
        return _TAGS + hashlib.sha256(text).hexdigest()

    # -- reading ------------------------------------------------------------------------------

    def read(self, name: str) -> BinaryIO:
        blob = _BLOB.fullmatch(check_name(name))
        if blob is not None:
            return self._blob(Digest("sha256:" + blob[1]), name)
        manifest = self._manifest(name)
        content = manifest.get("annotations", {}).get(_CONTENT)
        try:
            if content is not None:
                return io.BytesIO(base64.b64decode(content, validate=True))
            layer = manifest["layers"][0]
            return self._blob(Digest(str(layer["digest"])), name)
        except (binascii.Error, TypeError, KeyError, IndexError, ValueError) as error:
            raise CacheError(f"{name} in {self!r} is not an object of this cache") from error

    def _blob(self, digest: Digest, name: str) -> BinaryIO:
        answer = self._request("GET", f"blobs/{digest}")
        if answer.status == 404:
            answer.close()
            raise NotFound(f"{name} is not in {self!r}")
        self._expect(answer, READ, f"reading {name}")
        return answer.body

    def _manifest(self, name: str) -> dict[str, Any]:
        found = self._tagged(self._tag(name))
        noted = found.get("annotations") if found is not None else None
        if not isinstance(noted, dict) or noted.get(_NAME) != name:
            raise NotFound(f"{name} is not in {self!r}")
        assert found is not None
        return found

    def _tagged(self, tag: str) -> dict[str, Any] | None:
        with self._request("GET", f"manifests/{tag}", headers={"Accept": _MANIFEST}) as answer:
            if answer.status == 404:
                return None
            self._expect(answer, READ, f"reading {tag}")
            return self._decoded(answer, _MANIFEST_LIMIT, f"the manifest {tag}")

    def _decoded(self, answer: Response, limit: int, what: str) -> dict[str, Any]:
        """The JSON object that came; raises `CacheError`."""
        from layercache.oci.manifests import decode
        from layercache.oci.streams import read_bounded

        try:
            return decode(read_bounded(answer.body, limit, what=what), what=what)
        except SourceError as error:
            raise CacheError(f"the cache {self!r}: {error}") from error

    def read_many(self, names: Sequence[str]) -> Mapping[str, bytes]:
        return read_each(self.read, names, most=_THREADS, cache=repr(self))

    # -- writing ------------------------------------------------------------------------------

    def write(self, name: str, content: BinaryIO) -> None:
        blob = _BLOB.fullmatch(check_name(name))
        with tempfile.SpooledTemporaryFile(_CHUNK) as spool:
            hasher = hashlib.sha256()
            size = 0
            while chunk := content.read(_CHUNK):
                hasher.update(chunk)
                spool.write(chunk)
                size += len(chunk)
            digest = Digest("sha256:" + hasher.hexdigest())
            if blob is not None and digest != "sha256:" + blob[1]:
                raise CacheError(f"{name} was to be written with bytes of another digest")
            spool.seek(0)
            if blob is None and size <= _INSIDE:
                self._tag_small(name, spool.read())
                return
            self._upload(digest, size, cast(BinaryIO, spool))
        layer = {"mediaType": "application/octet-stream", "digest": digest, "size": size}
        self._put_manifest(name, layer, {})

    def _tag_small(self, name: str, data: bytes) -> None:
        layer = {"mediaType": _EMPTY_TYPE, "digest": sha256(_EMPTY), "size": len(_EMPTY)}
        self._put_manifest(name, layer, {_CONTENT: base64.b64encode(data).decode()})

    def _put_manifest(self, name: str, layer: Mapping[str, Any], more: Mapping[str, str]) -> None:
        empty = sha256(_EMPTY)
        self._upload(empty, len(_EMPTY), io.BytesIO(_EMPTY))
        manifest = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "artifactType": _ARTIFACT,
            "config": {"mediaType": _EMPTY_TYPE, "digest": empty, "size": len(_EMPTY)},
            "layers": [layer],
            "annotations": {
                _NAME: name,
                _SCOPE: self._scope,
                _STAMP: repr(time.time()),
                **more,
            },
        }
        data = json.dumps(manifest, separators=(",", ":")).encode()
        with self._request(
            "PUT",
            f"manifests/{self._tag(name)}",
            data=data,
            headers={"Content-Type": _MANIFEST},
            write=True,
        ) as answer:
            self._expect(answer, STORED, f"writing {name}")

    def _upload(self, digest: Digest, size: int, content: BinaryIO) -> None:
        if digest in self._uploaded:
            return
        from layercache.oci.uploads import Repository

        def opened() -> BinaryIO:
            content.seek(0)
            return cast(BinaryIO, _Unclosed(content))

        repository = Repository(self._client(), self.reference.domain, self.reference.path)
        try:
            if not repository.has(digest):
                repository.upload(digest, size, opened)
        except SourceError as error:
            raise CacheError(f"the cache {self!r}: {error}") from error
        if digest == sha256(_EMPTY):
            self._uploaded.add(digest)  # every object needs it; others may be collected there

    def delete(self, name: str) -> None:
        tag = self._tag(name)
        accept = {"Accept": _MANIFEST}
        with self._request("HEAD", f"manifests/{tag}", headers=accept, write=True) as answer:
            if answer.status == 404:
                return
            digest = answer.headers.get("Docker-Content-Digest", "")[:200]
            if not _DIGEST.fullmatch(digest):
                raise CacheError(f"the registry of {self!r} gives no digest for {name}")
        with self._request("DELETE", f"manifests/{digest}", write=True) as answer:
            if answer.status == 405:
                raise CacheError(f"the registry of {self!r} does not allow deletion")
            if answer.status != 404:
                self._expect(answer, STORED, f"deleting {name}")

    # -- listing ------------------------------------------------------------------------------

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        blob = _BLOB.fullmatch(prefix)
        if blob is not None:
            # One whole blob is asked for: one look, whatever else there is.
            with self._request("HEAD", f"blobs/sha256:{blob[1]}") as answer:
                if answer.status == 200:
                    length = (answer.headers.get("Content-Length") or "")[:20]
                    size = int(length) if length.isascii() and length.isdigit() else 0
                    yield ObjectInfo(prefix, size, time.time())
            return
        tags = [tag for tag in self._tags() if tag.startswith(_TAGS)]
        manifests = side_by_side([partial(self._tagged, tag) for tag in tags], _THREADS)
        for manifest in manifests:
            info = self._info(manifest)
            if info is not None and info.name.startswith(prefix):
                yield info

    def _info(self, manifest: dict[str, Any] | None) -> ObjectInfo | None:
        try:
            assert manifest is not None
            noted = manifest["annotations"]
            if noted[_SCOPE] != self._scope:
                return None
            content = noted.get(_CONTENT)
            size = manifest["layers"][0]["size"] if content is None else _decoded(content)
            return ObjectInfo(str(noted[_NAME]), int(size), float(noted[_STAMP]))
        except (AssertionError, KeyError, TypeError, ValueError, IndexError):
            return None  # somebody else's

    def _tags(self) -> Iterator[str]:
        path = "tags/list?n=1000"
        pages = 0
        while path:
            pages += 1
            with self._request("GET", path) as answer:
                if answer.status == 404:
                    return
                self._expect(answer, READ, "listing")
                body = self._decoded(answer, _LISTING_LIMIT, "a list of tags")
                path = self._place(answer, next_link(answer.headers.get("Link")))
            tags = body.get("tags") or []
            if not isinstance(tags, list) or pages > _PAGES:
                raise CacheError(f"listing {self!r}: no list of tags")
            yield from (tag for tag in tags if isinstance(tag, str))

    def _place(self, answer: Response, target: str | None) -> str:
        """The URL that an answer names; "" for none."""
        try:
            return urllib.parse.urljoin(answer.url, target) if target else ""
        except ValueError as error:
            raise CacheError(f"the cache {self!r} gives an address that is not a URL") from error

    def _expect(self, answer: Response, statuses: frozenset[int], doing: str) -> None:
        if answer.status not in statuses:
            from layercache.oci.complaints import complaint

            detail = complaint(answer)
            answer.close()
            raise CacheError(f"{doing} in {self!r}: status {answer.status}{detail}")


class _Unclosed(io.RawIOBase):
    """A content that is read again if it has to be: closing leaves it open."""

    def __init__(self, content: BinaryIO) -> None:
        super().__init__()
        self._content = content

    def read(self, size: int | None = -1) -> bytes:
        return self._content.read(-1 if size is None else size)


def _decoded(content: str) -> int:
    return len(content) // 4 * 3 - content[-2:].count("=")
