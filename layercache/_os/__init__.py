"""Operating system calls that the standard library lacks: file locks, xattrs, durability.

Imports only `errors`. Packages that decide never import it. Start at `durability`.
"""
