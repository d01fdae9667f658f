"""Builds as users know them: builder, request, result.

Imports everything but `testing` and `cli`; its public names are those of `layercache` itself.
Start at `builder`, then `reporter`.
"""
