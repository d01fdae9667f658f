"""Proposals for a Dockerfile: which order of its steps would have saved time in past changes.

Imports `reports`, `dockerfile` and the packages before them, and does no I/O. Start at `advise`,
then `reads_of_commands` (the files that a command needs) and `versions` (the changes of each
commit).
"""
