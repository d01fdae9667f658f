"""Base images in, images out: OCI layouts, archives, registries, tags of the cache.

Imports `store`, `oci`, `layers` and what is before them. Start at `resolver` (in) and `export`
(out).
"""
