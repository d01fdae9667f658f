"""Builds in the form that users see: builder, request, result.

Imports everything but `testing` and `cli`; its public names are exported by `layercache` itself.
Start at `builder`, then `running` and `reporter`.
"""
