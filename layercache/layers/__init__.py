"""Layers: deterministic tar changesets, written, indexed, read and applied safely."""
