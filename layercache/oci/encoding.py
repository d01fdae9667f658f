"""Manifests and other JSON of an image in one canonical form, so that digests are reproducible."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from layercache.model.descriptors import Descriptor

__all__ = ["CONFIG", "MANIFEST", "descriptor_to_json", "encode", "manifest_to_json"]

MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
CONFIG: Final = "application/vnd.oci.image.config.v1+json"


def encode(value: Mapping[str, Any]) -> bytes:
    """A JSON object in its one canonical form, as bytes; digests are computed over these.

    A lone surrogate (a byte that was not UTF-8) becomes U+FFFD, as in Go.
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace").encode()


def descriptor_to_json(descriptor: Descriptor) -> dict[str, Any]:
    """The object of a descriptor."""
    return {
        "mediaType": descriptor.media_type,
        "digest": descriptor.digest,
        "size": descriptor.size,
    }


def manifest_to_json(
    config: Descriptor,
    layers: Iterable[Descriptor],
    annotations: Iterable[tuple[str, str]] = (),
) -> dict[str, Any]:
    """The object of an OCI manifest, in a fixed order of keys; the lowest layer comes first."""
    found: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor_to_json(config),
        "layers": [descriptor_to_json(layer) for layer in layers],
    }
    if noted := dict(sorted(annotations)):
        found["annotations"] = noted
    return found
