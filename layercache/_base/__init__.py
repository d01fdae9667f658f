"""The base of all packages: frozen values, lazy packages, lazy regular expressions, paths.

Imports nothing from the library and does no I/O. Start at `classes`.
"""
