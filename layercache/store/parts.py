"""The parts of a cache, and a cache made of them, as the code that uses one sees them.

`layercache.store.store.Store` keeps them over one backend, `layercache.store.tiered.TieredStore`
over a store and remote ones behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, BinaryIO, Protocol, Self

if TYPE_CHECKING:
    from layercache.model.descriptors import Descriptor, Layer
    from layercache.model.digests import CacheKey, Digest, Fingerprint
    from layercache.model.layer_index import LayerIndex
    from layercache.model.records import Record
    from layercache.store.backend import Backend
    from layercache.store.small_objects import References
    from layercache.store.store import Store
    from layercache.store.store_events import StoreEvents
    from layercache.store.trails import Trail

__all__ = [
    "ActionCache",
    "Cache",
    "ContentStore",
    "DerivedStore",
    "FactStore",
    "TrailStore",
]


class ActionCache(Protocol):
    """Records by key, verified. Safe for threads."""

    def lookup(self, keys: Sequence[CacheKey]) -> dict[CacheKey, Record]:
        """The records of those keys that have one.

        Where looking is cheap, a record whose blob is not there counts as absent; so does one
        that can't be read.
        """

    def put(self, record: Record, *, replace: bool = False) -> Record:
        """Store `record`; returns the one that now stands for its key.

        A usable record that is there already stays unless ours has the higher (generation,
        digest). With `replace` ours gets a generation above it. Never raises for a failing
        backend: the record then serves this object only.
        """

    def rely_on(self, records: Iterable[Record]) -> None:
        """A build relies on these: collections leave them for a while."""

    def all(self, limit: int) -> list[Record] | None:
        """Every record that is here; None when there are more than `limit`, or when looking
        through them is not cheap."""

    def lock(
        self, key: CacheKey, give_up: Callable[[], bool] | None = None
    ) -> AbstractContextManager[bool]:
        """Let one of many racers execute the step of `key` while the others wait.

        Saves work only. Gives False at once where there are no locks. A holder that dies lets go.
        `give_up` is asked while waiting; True ends the wait.
        """


class ContentStore(Protocol):
    """Blobs by digest, verified whenever they are read. Safe for threads."""

    def has(self, descriptor: Descriptor) -> bool:
        """Whether the blob can be had, by name and size; reads nothing."""

    def publish(self, descriptors: Sequence[Descriptor]) -> None:
        """Make these blobs known wherever others of a shared store look; raises `CacheError`."""

    def obtain(self, descriptor: Descriptor) -> bool:
        """Whether a blob is here, or could be brought here from where others store theirs."""

    def intact(self, descriptor: Descriptor) -> bool:
        """Whether the blob is there and verifies; reads all of it."""

    def distrust(self, digest: Digest) -> None:
        """Treat the blob as absent until it is written again: it is not what it was taken for."""

    def keep(self, descriptor: Descriptor) -> None:
        """Make sure that the blob stays, for a reference that outlives this object; raises
        `CacheError`."""

    def open(self, digest: Digest) -> BinaryIO:
        """The blob's bytes; reading to the end raises `CorruptObject` when they are not right.

        Raises `NotFound`, or `CacheError` when the backend fails.
        """

    def read(self, digest: Digest) -> bytes:
        """All bytes of a small blob, verified."""

    def verified_path(self, descriptor: Descriptor) -> str:
        """A file with the verified bytes, for reading by offset while the store is open.

        Raises `NotFound`, `CorruptObject` or `CacheError`.
        """

    def open_range(self, descriptor: Descriptor, offset: int, size: int) -> BinaryIO:
        """`size` bytes of the verified blob from `offset` on."""

    @property
    def open_layers(self) -> str | None:
        """The scratch directory in which open layers are looked for; None where there are none."""

    def keep_open(self, layer: Layer, index: LayerIndex, name: str) -> None:
        """Take an open layer with the files in the unpacked directory `name` there; raises
        `CacheError` where it can't be kept."""

    def sealed(self, layer: Layer) -> Layer:
        """`layer` with its archive, which is made now if nobody made it before.

        Raises `NotFound` or `CorruptObject` where the layer is lost, `CacheError` where the
        archive can't be written.
        """

    def add(self, content: BinaryIO, media_type: str) -> Descriptor:
        """Store all of `content`; raises `CacheError` only where it can't be kept at all."""

    def add_file(self, path: str, media_type: str, digest: Digest, size: int) -> Descriptor:
        """Store the complete file at `path`, whose digest the caller computed while writing.

        It is moved into place where that is possible, else copied and removed.
        """


class TrailStore(Protocol):
    """Trails by target: predictions of what a build needs."""

    def get(self, target: str) -> Trail | None:
        """The prediction for `target`; None if it is missing or does not verify."""

    def all(self) -> list[Trail]:
        """Every trail that is here and verifies."""

    def prefetch(
        self, names: Sequence[str], beginnings: Callable[[], Sequence[str]] = tuple
    ) -> None:
        """Fetch those trails of these names that remotes have, with their records.

        One round trip, a request for each name; nothing where there are no remotes. `definition_of`
        (`layercache.store.trails`) gives a name that is the same on every machine. Where no trail
        is found, that of a target is taken which begins alike (`beginnings_of`): one round trip
        more to find it and one to fetch it.
        """

    def put(self, trail: Trail) -> None:
        """Store `trail`; if it equals the stored one, only its stamp is renewed."""

    def renew(self, target: str) -> None:
        """Renew the stamp of a trail: a build came out as it says."""


class FactStore(Protocol):
    """Fingerprints of what selectors pick from states."""

    def get(self, subject: str, selector: str) -> Fingerprint | None:
        """The fingerprint of the selector with this digest on the state with this chain ID."""

    def believes(self, subject: str, selector: str) -> bool:
        """Whether `get` gives what somebody else said of the state, not what was seen here.

        Good enough to look a record up with; a result is stored only once it was seen here, too.
        """

    def put(self, subject: str, selector: str, fingerprint: Fingerprint) -> None:
        """Keep what was seen here."""


class DerivedStore(Protocol):
    """Small objects that were computed from others, by kind and name."""

    def get(self, kind: str, name: str) -> bytes | None:
        """A derived object; None if it is missing or does not verify."""

    def put(self, kind: str, name: str, payload: bytes) -> None:
        """Keep a derived object; `kind` is a word, `name` what it was computed from."""


class Cache(Protocol):
    """A cache as a build uses it: its parts, and when what was put becomes durable."""

    @property
    def records(self) -> ActionCache: ...

    @property
    def blobs(self) -> ContentStore: ...

    @property
    def trails(self) -> TrailStore: ...

    @property
    def facts(self) -> FactStore: ...

    @property
    def derived(self) -> DerivedStore: ...

    @property
    def references(self) -> References: ...

    @property
    def events(self) -> StoreEvents: ...

    @property
    def backend(self) -> Backend:
        """Where objects are kept on this side."""

    @property
    def local(self) -> Store:
        """The store over that backend."""

    def backends(self) -> tuple[Backend, ...]:
        """Where objects are kept: the own backend, then those behind it."""

    def commit(self) -> bool:
        """Make all that was put durable; returns whether that succeeded."""

    def in_use(self) -> AbstractContextManager[None]:
        """Hold what a build or a plan relies on until the last one ends."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def close(self) -> None:
        """End the use of this object; what was not committed is not acknowledged."""
