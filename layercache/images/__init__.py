"""Import of base images and export of built ones: OCI layouts, archives, registries, cache tags.

Imports `store`, `oci`, `layers` and the packages before them. Start at `resolver` (import) and
`export`.
"""
