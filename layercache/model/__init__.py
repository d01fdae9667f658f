"""Values that all packages share: instructions, operations, the graph, keys, records, trees,
layers.

Imports only `_base` and `errors`, and does no I/O. Start at `instruction` and `operations` (the
definition of a step), then `graph`, `keys` (how a step is keyed) and `task` (the input of an
executor).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from layercache._base.lazy import lazily

if TYPE_CHECKING:
    from layercache.model.descriptors import (
        LAYER_TAR,
        LAYER_TAR_GZIP,
        LAYER_TAR_ZSTD,
        SCRATCH,
        Descriptor,
        Layer,
        State,
    )
    from layercache.model.digests import (
        CacheKey,
        ChainID,
        DiffID,
        Digest,
        Fingerprint,
        LayerID,
        TreeDigest,
        check_digest,
        is_digest,
        next_chain_id,
        sha256,
    )
    from layercache.model.graph import Base, Graph, GraphBuilder, Input, Origin, Step, Vertex
    from layercache.model.image_config import DEFAULT_PATH, DEFAULT_SHELL, HistoryEntry, ImageConfig
    from layercache.model.instruction import Field, Instruction, Source, Value
    from layercache.model.keys import InputMaterial, KeyMaterial, KeyStrategy, Narrows, cache_key
    from layercache.model.layer_index import Entry, IndexBuilder, KeepsIndex, LayerIndex, sort_key
    from layercache.model.layer_times import LAYER_TIME, clamped_time, copied_time
    from layercache.model.observations import (
        ABSENT,
        ATTRIBUTES,
        BITS,
        CONTENT,
        CONTRACT,
        FOUND,
        LINK,
        LISTING,
        METADATA,
        SIZE,
        WHOLE,
        Observations,
    )
    from layercache.model.operations import (
        PARENT,
        SOURCE,
        CopyFiles,
        CopySource,
        Exec,
        MakeDirectory,
        Mount,
    )
    from layercache.model.records import Closed, Record
    from layercache.model.selectors import (
        BY_KEY,
        EVERYTHING,
        NOTHING,
        ByKey,
        Everything,
        Files,
        Nothing,
        Observed,
        Selector,
    )
    from layercache.model.sources import ContextSource, GitSource, UrlSource
    from layercache.model.task import (
        Blobs,
        BoundInput,
        ChecksInstructions,
        Executor,
        Masks,
        Result,
        StepTraits,
        Task,
        UnpacksStates,
        UsesBaseImages,
        WithSecrets,
    )
    from layercache.model.tree import (
        CAPABILITY,
        Child,
        Closes,
        HardLinks,
        Linked,
        Node,
        Timed,
        Tree,
        directory_digest,
        node_digest,
        pack_directory,
    )

__all__ = [
    "ABSENT",
    "ATTRIBUTES",
    "BITS",
    "BY_KEY",
    "CAPABILITY",
    "CONTENT",
    "CONTRACT",
    "DEFAULT_PATH",
    "DEFAULT_SHELL",
    "EVERYTHING",
    "FOUND",
    "LAYER_TAR",
    "LAYER_TAR_GZIP",
    "LAYER_TAR_ZSTD",
    "LAYER_TIME",
    "LINK",
    "LISTING",
    "METADATA",
    "NOTHING",
    "PARENT",
    "SCRATCH",
    "SIZE",
    "SOURCE",
    "WHOLE",
    "Base",
    "Blobs",
    "BoundInput",
    "ByKey",
    "CacheKey",
    "ChainID",
    "ChecksInstructions",
    "Child",
    "Closed",
    "Closes",
    "ContextSource",
    "CopyFiles",
    "CopySource",
    "Descriptor",
    "DiffID",
    "Digest",
    "Entry",
    "Everything",
    "Exec",
    "Executor",
    "Field",
    "Files",
    "Fingerprint",
    "GitSource",
    "Graph",
    "GraphBuilder",
    "HardLinks",
    "HistoryEntry",
    "ImageConfig",
    "IndexBuilder",
    "Input",
    "InputMaterial",
    "Instruction",
    "KeepsIndex",
    "KeyMaterial",
    "KeyStrategy",
    "Layer",
    "LayerID",
    "LayerIndex",
    "Linked",
    "MakeDirectory",
    "Masks",
    "Mount",
    "Narrows",
    "Node",
    "Nothing",
    "Observations",
    "Observed",
    "Origin",
    "Record",
    "Result",
    "Selector",
    "Source",
    "State",
    "Step",
    "StepTraits",
    "Task",
    "Timed",
    "Tree",
    "TreeDigest",
    "UnpacksStates",
    "UrlSource",
    "UsesBaseImages",
    "Value",
    "Vertex",
    "WithSecrets",
    "cache_key",
    "check_digest",
    "clamped_time",
    "copied_time",
    "directory_digest",
    "is_digest",
    "next_chain_id",
    "node_digest",
    "pack_directory",
    "sha256",
    "sort_key",
]

if not TYPE_CHECKING:  # hidden from type checkers, so that they still report misspelt names
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "descriptors": "LAYER_TAR LAYER_TAR_GZIP LAYER_TAR_ZSTD SCRATCH Descriptor Layer State",
            "digests": (
                "CacheKey ChainID DiffID Digest Fingerprint LayerID TreeDigest check_digest "
                "is_digest next_chain_id sha256"
            ),
            "graph": "Base Graph GraphBuilder Input Origin Step Vertex",
            "image_config": "DEFAULT_PATH DEFAULT_SHELL HistoryEntry ImageConfig",
            "instruction": "Field Instruction Source Value",
            "keys": "InputMaterial KeyMaterial KeyStrategy Narrows cache_key",
            "layer_index": "Entry IndexBuilder KeepsIndex LayerIndex sort_key",
            "layer_times": "LAYER_TIME clamped_time copied_time",
            "observations": (
                "ABSENT ATTRIBUTES BITS CONTENT CONTRACT FOUND LINK LISTING METADATA SIZE "
                "WHOLE Observations"
            ),
            "operations": "PARENT SOURCE CopyFiles CopySource Exec MakeDirectory Mount",
            "records": "Closed Record",
            "selectors": (
                "BY_KEY EVERYTHING NOTHING ByKey Everything Files Nothing Observed Selector"
            ),
            "sources": "ContextSource GitSource UrlSource",
            "task": (
                "Blobs BoundInput ChecksInstructions Executor Masks Result StepTraits Task "
                "UnpacksStates UsesBaseImages WithSecrets"
            ),
            "tree": (
                "CAPABILITY Child Closes HardLinks Linked Node Timed Tree directory_digest "
                "node_digest pack_directory"
            ),
        },
    )
