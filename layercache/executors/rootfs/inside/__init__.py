"""What runs within a step's namespaces, and the helper process that makes them.

Its modules import little besides each other, since a hostile image is around them. Start at
`helper`, then `step` and `mounts`; `wire` is how they talk to `layercache`.
"""
