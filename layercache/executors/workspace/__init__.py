"""The workspace executor: commands of this machine, in a plain directory. It isolates nothing.

Imports the same packages as `layercache.executors`. Start at `executor`, then `processes`.
"""
