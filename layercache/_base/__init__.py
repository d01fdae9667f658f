"""What all packages stand on: frozen values, lazy packages, late regular expressions, paths.

Imports nothing of the library, and does no I/O. Start at `frozen`.
"""
