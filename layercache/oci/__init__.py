"""OCI image formats, and the registry client.

Imports `model` and the base packages; independent of caches and builds. Start at `references` and
`manifests`, then `transport` and `credentials`.
"""
