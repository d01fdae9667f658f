"""The cache: records by key, layers by digest, trails of builds, tags, and their collection.

Imports `oci`, `layers` and the packages before them; the media on which objects are kept are in
`backends`. Start at `parts` and `backend` (protocols), then `store`, `blobs` and `collection`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from layercache._base.lazy import lazily

if TYPE_CHECKING:
    from layercache.store.backend import (
        SEGMENT_CHARACTERS,
        Adopts,
        Backend,
        BatchReader,
        Cleans,
        Holds,
        InDirectory,
        LocalFiles,
        Locks,
        ObjectInfo,
        Releases,
        Stages,
        Stats,
        Syncs,
        Touches,
        check_name,
    )
    from layercache.store.backends import open_backend
    from layercache.store.backends.fsspec import FsspecBackend
    from layercache.store.backends.local import LocalBackend
    from layercache.store.backends.memory import MemoryBackend
    from layercache.store.backends.obstore import ObstoreBackend
    from layercache.store.backends.redis import RedisBackend
    from layercache.store.backends.registry import RegistryBackend
    from layercache.store.codec import Verifier
    from layercache.store.collection import Collected, Damage, Usage, collect, usage, verify
    from layercache.store.open import default_cache, open_store, scratch_directory
    from layercache.store.parts import (
        ActionCache,
        Cache,
        ContentStore,
        DerivedStore,
        FactStore,
        TrailStore,
    )
    from layercache.store.retention import (
        KeepBuilds,
        KeepDuration,
        KeepStorage,
        LabelFilter,
        MinFree,
        Only,
        Pinned,
        Policy,
        Situation,
        Verdict,
    )
    from layercache.store.store import Store
    from layercache.store.store_events import StoreEvent
    from layercache.store.tags import TaggedImage
    from layercache.store.tiered import TieredStore
    from layercache.store.trails import Fact, Trail, TrailStep
    from layercache.store.trust import KeyedVerifier

__all__ = [
    "SEGMENT_CHARACTERS",
    "ActionCache",
    "Adopts",
    "Backend",
    "BatchReader",
    "Cache",
    "Cleans",
    "Collected",
    "ContentStore",
    "Damage",
    "DerivedStore",
    "Fact",
    "FactStore",
    "FsspecBackend",
    "Holds",
    "InDirectory",
    "KeepBuilds",
    "KeepDuration",
    "KeepStorage",
    "KeyedVerifier",
    "LabelFilter",
    "LocalBackend",
    "LocalFiles",
    "Locks",
    "MemoryBackend",
    "MinFree",
    "ObjectInfo",
    "ObstoreBackend",
    "Only",
    "Pinned",
    "Policy",
    "RedisBackend",
    "RegistryBackend",
    "Releases",
    "Situation",
    "Stages",
    "Stats",
    "Store",
    "StoreEvent",
    "Syncs",
    "TaggedImage",
    "TieredStore",
    "Touches",
    "Trail",
    "TrailStep",
    "TrailStore",
    "Usage",
    "Verdict",
    "Verifier",
    "check_name",
    "collect",
    "default_cache",
    "open_backend",
    "open_store",
    "scratch_directory",
    "usage",
    "verify",
]

if not TYPE_CHECKING:  # hidden from type checkers, so that they still report misspelt names
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "backend": (
                "SEGMENT_CHARACTERS Adopts Backend BatchReader Cleans Holds InDirectory LocalFiles "
                "Locks ObjectInfo Releases Stages Stats Syncs Touches check_name"
            ),
            "backends": "open_backend",
            "backends.fsspec": "FsspecBackend",
            "backends.local": "LocalBackend",
            "backends.memory": "MemoryBackend",
            "backends.obstore": "ObstoreBackend",
            "backends.redis": "RedisBackend",
            "backends.registry": "RegistryBackend",
            "codec": "Verifier",
            "collection": "Collected Damage Usage collect usage verify",
            "open": "default_cache open_store scratch_directory",
            "parts": "ActionCache Cache ContentStore DerivedStore FactStore TrailStore",
            "retention": (
                "KeepBuilds KeepDuration KeepStorage LabelFilter MinFree Only Pinned Policy "
                "Situation Verdict"
            ),
            "store": "Store",
            "store_events": "StoreEvent",
            "tags": "TaggedImage",
            "tiered": "TieredStore",
            "trails": "Fact Trail TrailStep",
            "trust": "KeyedVerifier",
        },
    )
