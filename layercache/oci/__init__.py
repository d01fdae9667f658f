"""Formats of the Open Container Initiative, and the client of its registries.

Imports `model` and the ground; knows no cache and no build. Start at `references` and `manifests`,
then `transport` and `credentials`.
"""
