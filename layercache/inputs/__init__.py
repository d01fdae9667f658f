"""What a build reads, as trees: contexts, URLs, Git repositories, what a step observed.

Imports `images`, `store`, `layers` and what is before them. Start at `inputs`, then `context` and
`fetch`; directories are scanned in `scan`.
"""
