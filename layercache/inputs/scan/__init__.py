"""Directories as trees: build contexts scanned fast, with a stat cache, and opened safely.

Imports what `layercache.inputs` may. Start at `context_tree`, then `scanning` and `statcache`;
`read_beneath` opens what a hostile context may have moved.
"""
