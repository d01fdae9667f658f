"""The inputs of a build, as trees: contexts, URLs, Git repositories, observations.

Imports `images`, `store`, `layers` and the packages before them. Start at `inputs`, then `context`
and `fetch`; directories are scanned in `scan`.
"""
