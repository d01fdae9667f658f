"""Proposals for a Dockerfile: which order of its steps past changes would have rewarded.

Imports `reports`, `dockerfile` and what is before them, and does no I/O. Start at `advise`, then
`reads_of_commands` (what a command needs) and `versions` (what each commit changed).
"""
