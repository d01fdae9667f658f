"""What the standard library lacks of the system: file locks, extended attributes, durability.

Imports `errors` alone. Nothing that decides imports it. Start at `durability`.
"""
