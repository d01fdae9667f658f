"""Directories as trees: build contexts scanned fast, with a stat cache, and opened safely."""
