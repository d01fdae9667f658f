"""Directories as trees: build contexts scanned fast, with a stat cache, and opened safely."""

from layercache.filetree.context import Context, ContextTree

__all__ = ["Context", "ContextTree"]
