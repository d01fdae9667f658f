"""The engine: answers the walk's questions, runs steps in parallel, records their results.

Imports `executors`, `inputs`, `store` and the packages before them. Start at `driver`, then
`executions` (one execution for all who wait for it) and `window`.
"""
