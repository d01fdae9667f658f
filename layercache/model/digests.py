"""Digests, with a type for each kind.

All are strings at run time; the type checker keeps the kinds apart.
"""

from __future__ import annotations

from typing import Final, NewType

from layercache.errors import UsageError

# The digests made here are of small values. Python's own SHA-256 loads at once; OpenSSL's, which
# `hashlib` prefers, is faster for files and costs a twentieth of the shortest build to load.
try:
    from _sha2 import sha256 as _sha256  # type: ignore[import-not-found,unused-ignore]
except ImportError:
    try:
        from _sha256 import sha256 as _sha256  # type: ignore[import-not-found,no-redef,unused-ignore]
    except ImportError:
        from hashlib import sha256 as _sha256  # type: ignore[assignment,unused-ignore]

__all__ = [
    "CacheKey",
    "ChainID",
    "DiffID",
    "Digest",
    "Fingerprint",
    "LayerID",
    "TreeDigest",
    "check_digest",
    "is_digest",
    "is_tree_digest",
    "next_chain_id",
    "sha256",
]

Digest = NewType("Digest", str)
"""`sha256:<hex>` over stored bytes (OCI descriptor digest)."""

DiffID = NewType("DiffID", str)
"""`sha256:<hex>` over the uncompressed tar of a layer (OCI image configuration)."""

TreeDigest = NewType("TreeDigest", str)
"""`blake3:<hex>` over the list of a layer's entries (`model.tree_digest`)."""

LayerID = NewType("LayerID", str)
"""What identifies a layer: its tree digest, or the diff ID of one that came as an archive."""

ChainID = NewType("ChainID", str)
"""Digest of a stack of layers' identities; empty for scratch. Of a base image alone it is the
chain ID of the OCI image specification."""

Fingerprint = NewType("Fingerprint", str)
"""Hex BLAKE3 digest of the selected content of an input; a chain ID for a whole state."""

CacheKey = NewType("CacheKey", str)
"""Hex BLAKE3 digest of key material."""

_HEX: Final = "0123456789abcdef"


def sha256(data: bytes) -> Digest:
    """The digest of `data` in OCI notation."""
    return Digest("sha256:" + _sha256(data).hexdigest())


def is_digest(text: str) -> bool:
    """Whether `text` is `sha256:` and 64 hex digits."""
    return len(text) == 71 and text.startswith("sha256:") and not text[7:].strip(_HEX)


def is_tree_digest(text: str) -> bool:
    """Whether `text` is `blake3:` and 64 hex digits."""
    return len(text) == 71 and text.startswith("blake3:") and not text[7:].strip(_HEX)


def check_digest(text: str) -> Digest:
    """`text` as a digest; raises `UsageError` unless it is `sha256:` and 64 hex digits."""
    if not is_digest(text):
        raise UsageError(f"not a digest: {text!r} (expected sha256: and 64 hexadecimal digits)")
    return Digest(text)


def next_chain_id(parent: ChainID, layer: LayerID) -> ChainID:
    """The chain ID of a stack with one more layer, as in the OCI image specification (config.md),
    which names layers by their diff IDs."""
    if not parent and is_digest(layer):
        return ChainID(layer)
    return ChainID(sha256(f"{parent} {layer}".encode()))
