"""The workspace executor: commands of this machine, in a plain directory. It isolates nothing.

Imports what `layercache.executors` may. Start at `executor`, then `processes`.
"""
