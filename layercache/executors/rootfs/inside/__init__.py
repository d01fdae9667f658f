"""Code that runs within a step's namespaces, and the helper process that makes them.

Its modules import little besides each other, because a hostile image surrounds them. Start at
`helper`, then `step` and `mounts`; `wire` is the protocol to `layercache`.
"""
