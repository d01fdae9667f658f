"""Instructions to a graph: stages, variables, the image's configuration.

Imports `syntax`, `trees` and `model`. Start at `lower`, then `stage` and `copy`.
"""
