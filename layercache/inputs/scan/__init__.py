"""Directories as trees: build contexts scanned fast, with a stat cache, and opened safely."""

from layercache.inputs.scan.context_tree import Context, ContextTree

__all__ = ["Context", "ContextTree"]
