"""Images in a registry: lookup and pull (OCI distribution specification), and push."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol, cast

from layercache._os.side_by_side import side_by_side
from layercache.errors import CacheError, HostileArchive, SourceError, UsageError
from layercache.http.headers import content_range
from layercache.http.headers import media_type as media_type_of
from layercache.images.layouts import FoundImage, find_in_manifest
from layercache.model.descriptors import Descriptor
from layercache.model.digests import Digest, check_digest, sha256
from layercache.oci.manifests import (
    CONFIG,
    CONFIG_LIMIT,
    INDEXES,
    MANIFEST_LIMIT,
    MANIFESTS,
    IndexEntry,
    decode,
    select,
)
from layercache.oci.references import Reference
from layercache.oci.statuses import READ, STORED
from layercache.oci.streams import read_bounded
from layercache.oci.transport import Response, Transport
from layercache.oci.uploads import Repository, expect

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

    from layercache.oci.platforms import Platform

__all__ = ["Registry", "RegistryBlobs", "SmallBlobs"]

_ACCEPT: Final = ", ".join([*sorted(MANIFESTS | INDEXES), "*/*;q=0.1"])
_RESUMES: Final = 8
_TRANSFERS: Final = 4
"""The number of blobs that are sent in parallel."""


class SmallBlobs(Protocol):
    """Stores manifests and configurations, so that a pinned image needs no request."""

    def open(self, digest: Digest) -> BinaryIO:
        """The verified bytes; raises `CorruptObject` or `NotFound`."""

    def add(self, content: BinaryIO, media_type: str) -> Descriptor:
        """Store `content`."""


class Registry:
    """Finds images in registries, and pushes. Safe for threads.

    With `keep`, manifests and configurations are stored there and found again by digest; a plan,
    which must not write anything, passes `write=False`.
    """

    def __init__(
        self,
        transport: Transport | None = None,
        *,
        keep: SmallBlobs | None = None,
        write: bool = True,
    ) -> None:
        self._transport = transport if transport is not None else Transport()
        self._keep = keep
        self._write = write

    def find(self, name: str, platform: Platform) -> tuple[FoundImage, RegistryBlobs] | None:
        """The image `name` for `platform`; None if the registry has no image with that name.

        Raises `SourceError` if the registry refuses or can't be reached, `HostileArchive` for a
        response that does not match its digest.
        """
        reference = Reference.parse(name).tagged()
        *mirrors, place = self._transport.hosts.places(reference)
        own = RegistryBlobs(self._transport, place, self._kept)
        for mirror in mirrors:
            source = RegistryBlobs(self._transport, mirror, self._kept, otherwise=own)
            try:
                found = self._find(mirror, source, platform, reference.familiar)
            except SourceError:
                continue  # its registry is asked
            if found is not None:
                return found
        return self._find(place, own, platform, reference.familiar)

    def _find(
        self, reference: Reference, source: RegistryBlobs, platform: Platform, what: str
    ) -> tuple[FoundImage, RegistryBlobs] | None:
        entry = self._head(reference, source)
        if entry is None:
            return None
        chosen, data = select(source, [entry], platform, what=what)
        found = find_in_manifest(source, chosen.digest, data, what=what)
        self._remember(source)
        return found, source

    def _head(self, reference: Reference, source: RegistryBlobs) -> IndexEntry | None:
        """The present target of the reference: its digest, and its bytes unless they are stored."""
        what = f"manifest of {reference.familiar}"
        if reference.digest is not None and (kept := self._kept(reference.digest)) is not None:
            return _entry(reference.digest, kept, None, what)
        if self._keep is not None and reference.digest is None:
            # HEAD costs nothing against the rate limit of Docker Hub; GET does.
            with source.manifest("HEAD", str(reference.tag)) as answer:
                if answer.status == 404:
                    return None
                digest = _digest_header(answer)
                if digest is not None and (kept := self._kept(digest)) is not None:
                    return _entry(digest, kept, None, what)
        with source.manifest("GET", reference.digest or str(reference.tag)) as answer:
            if answer.status == 404:
                return None
            expect(answer, READ, what)
            data = read_bounded(answer.body, MANIFEST_LIMIT, what=what)
            digest = sha256(data)
            claimed = reference.digest or _digest_header(answer)
            if claimed is not None and claimed != digest:
                raise HostileArchive(f"{what}: its digest is {digest} instead of {claimed}")
            source.held[digest] = data
            media_type = media_type_of(answer.headers.get("Content-Type"))
            return _entry(digest, data, media_type, what)

    def _kept(self, digest: Digest) -> bytes | None:
        if self._keep is None:
            return None
        try:
            return read_bounded(self._keep.open(digest), CONFIG_LIMIT, what=digest)
        except (CacheError, HostileArchive):
            return None  # then it is fetched

    def _remember(self, source: RegistryBlobs) -> None:
        if self._keep is None or not self._write:
            return
        for data in source.held.values():
            try:
                self._keep.add(io.BytesIO(data), CONFIG)
            except CacheError:
                return  # a cache that can't be written only costs requests

    # -- push -------------------------------------------------------------------------------

    def push(
        self,
        references: Sequence[Reference],
        manifest: tuple[Descriptor, bytes],
        blobs: Sequence[tuple[Descriptor, Callable[[], BinaryIO], RegistryBlobs | None]],
    ) -> Digest:
        """Upload the `blobs` that a registry lacks, then the manifest under each reference.

        Each blob comes with a function that opens it and, if it was pulled from a registry, that
        origin: within one registry it is mounted instead of uploaded. Blobs travel side by side,
        once for each repository; the last is the smallest. Raises `SourceError`.
        """
        repositories: dict[tuple[str, str], list[Reference]] = {}
        for reference in references:
            repositories.setdefault((reference.domain, reference.path), []).append(reference)
        filled: dict[str, str] = {}
        for (host, path), named in repositories.items():
            repository = Repository(self._transport, host, path)
            calls = []
            for blob in blobs:
                origin = blob[2].reference if blob[2] is not None else None
                near = origin.path if origin is not None and origin.domain == host else None
                calls.append(partial(_push_blob, repository, *blob[:2], filled.get(host, near)))
            if calls:
                # The last alone, the configuration: the others find the token that it fetched.
                calls.pop()()
            side_by_side(calls, _TRANSFERS)
            for reference in named:
                self._push_manifest(reference, *manifest)
            filled.setdefault(host, path)
        return manifest[0].digest

    def _push_manifest(self, reference: Reference, descriptor: Descriptor, data: bytes) -> None:
        target = reference.tag or descriptor.digest
        with self._transport.request(
            "PUT",
            reference.domain,
            f"{reference.path}/manifests/{target}",
            repository=reference.path,
            actions="pull,push",
            headers={"Content-Type": descriptor.media_type},
            data=data,
        ) as answer:
            expect(answer, STORED, f"push of {reference.familiar}")


def _push_blob(
    repository: Repository,
    descriptor: Descriptor,
    opened: Callable[[], BinaryIO],
    mount_from: str | None,
) -> None:
    if not repository.has(descriptor.digest):
        repository.upload(descriptor.digest, descriptor.size, opened, mount_from=mount_from)


class RegistryBlobs:
    """The blobs of one repository in a registry; what a mirror lacks comes from `otherwise`."""

    def __init__(
        self,
        transport: Transport,
        reference: Reference,
        kept: Callable[[Digest], bytes | None],
        *,
        otherwise: RegistryBlobs | None = None,
    ) -> None:
        self._otherwise = otherwise
        self._transport = transport
        self.reference = reference
        self._kept = kept
        self.held: dict[Digest, bytes] = {}
        """Small blobs read so far; the caller that requests one checks it."""

    def manifest(self, method: str, which: str) -> Response:
        """The response to a request for a manifest, whatever its status."""
        reference = self.reference
        return self._transport.request(
            method,
            reference.domain,
            f"{reference.path}/manifests/{which}",
            repository=reference.path,
            headers={"Accept": _ACCEPT},
        )

    def open(self, descriptor: Descriptor) -> BinaryIO:
        """The bytes of a blob or of a manifest by digest; a broken transfer is resumed."""
        held = self.held.get(descriptor.digest)
        if held is not None:
            return io.BytesIO(held)
        small = descriptor.size <= CONFIG_LIMIT and (
            descriptor.media_type in MANIFESTS | INDEXES
            or "config" in descriptor.media_type
            or "container.image" in descriptor.media_type
        )
        if not small:
            try:
                return cast(BinaryIO, _Blob(self._get, descriptor))
            except SourceError:
                if self._otherwise is None:
                    raise
                return self._otherwise.open(descriptor)
        data = self._kept(descriptor.digest)
        if data is None:
            what = f"{descriptor.digest} of {self.reference.familiar}"
            if descriptor.media_type in MANIFESTS | INDEXES:
                answer = self.manifest("GET", descriptor.digest)
                with answer:
                    expect(answer, READ, what)
                    data = read_bounded(answer.body, descriptor.size, what=what)
            else:
                blob = cast(BinaryIO, _Blob(self._get, descriptor))
                data = read_bounded(blob, descriptor.size, what=what)
        if sha256(data) == descriptor.digest:
            self.held[descriptor.digest] = data
        return io.BytesIO(data)

    def _get(self, descriptor: Descriptor, offset: int) -> Response:
        reference = self.reference
        answer = self._transport.request(
            "GET",
            reference.domain,
            f"{reference.path}/blobs/{descriptor.digest}",
            repository=reference.path,
            headers={"Range": f"bytes={offset}-"} if offset else {},
        )
        what = f"{descriptor.digest} of {reference.familiar}"
        if answer.status == 404:
            answer.close()
            raise SourceError(f"{what}: the registry does not have this blob any more")
        if offset:
            found = content_range(answer.headers.get("Content-Range"))
            if answer.status != 206 or found != offset:
                answer.close()
                raise SourceError(f"{what}: the transfer broke off and can't be resumed")
        else:
            expect(answer, READ, what)
        return answer


class _Blob(io.RawIOBase):
    """The bytes of a blob, over several connections if necessary."""

    def __init__(self, get: Callable[[Descriptor, int], Response], descriptor: Descriptor) -> None:
        self._get = get
        self._descriptor = descriptor
        self._offset = 0
        self._resumes = 0
        self._answer: Response | None = get(descriptor, 0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        while self._answer is not None and len(view):
            try:
                data = self._answer.body.read(len(view))
            except OSError as error:
                data = b""
                broken: Exception | None = error
            else:
                broken = None
            if data:
                view[: len(data)] = data
                self._offset += len(data)
                return len(data)
            self._answer.close()
            self._answer = None
            if self._offset < self._descriptor.size:
                self._resume(broken)
        return 0

    def _resume(self, broken: Exception | None) -> None:
        self._resumes += 1
        if self._resumes > _RESUMES:
            raise SourceError(
                f"{self._descriptor.digest}: the transfer broke off {self._resumes} times"
                + (f" ({broken})" if broken else "")
            ) from broken
        self._answer = self._get(self._descriptor, self._offset)

    def close(self) -> None:
        if self._answer is not None:
            self._answer.close()
            self._answer = None
        super().close()


def _entry(digest: Digest, data: bytes, media_type: str | None, what: str) -> IndexEntry:
    """The entry for a manifest or index; its own media type overrides that of the response."""
    value = decode(data, what=what)
    own = value.get("mediaType")
    kind = own if isinstance(own, str) else media_type
    if kind not in MANIFESTS | INDEXES:
        kind = max(INDEXES if "manifests" in value else MANIFESTS)
    return IndexEntry(Descriptor(kind, digest, len(data)))


def _digest_header(answer: Response) -> Digest | None:
    text = answer.headers.get("Docker-Content-Digest") or ""
    try:
        return check_digest(text)
    except UsageError:
        return None
