"""The engine: answers what a walk asks, runs steps side by side, keeps what they gave.

Imports `executors`, `inputs`, `store` and what is before them. Start at `driver`, then
`executions` (one execution for all who wait for it) and `window`.
"""
