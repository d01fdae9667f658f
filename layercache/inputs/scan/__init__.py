"""Directories as trees: build contexts scanned fast, with a stat cache, and opened safely.

Imports the same packages as `layercache.inputs`. Start at `context_tree`, then `scanning` and
`statcache`; `read_beneath` opens files safely even if a hostile context moves them.
"""
