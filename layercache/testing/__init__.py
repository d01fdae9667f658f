"""The testing kit: unit tests of cache semantics that run nothing, and suites for plug-ins.

- `memory`, `commands`, `executors`: an executor over trees in memory, and wrappers that count,
  fail, wait or vary on purpose; `bases`: base images made of a dictionary.
- `oracle`: what a build without any cache gives; `laws`: edit histories checked against it.
- `walks`, `keys`, `execution`, `instructions`, `storage`: conformance suites for plug points;
  `wrong`: implementations that they must catch.
- `strategies`: Hypothesis strategies; `pytest_plugin`: the fixture `layers`.

Nothing here is imported by the library itself, except `trees`.
"""
