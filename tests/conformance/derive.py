"""`python -m tests.conformance.derive [--check]`: write `derived/` from the rules."""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys

from . import rules
from .deriving import scenarios, write

HERE = os.path.dirname(os.path.abspath(__file__))
DERIVED = os.path.join(HERE, "derived")


def gather() -> None:
    """Load every module of `rules`."""
    for module in pkgutil.iter_modules(rules.__path__):
        importlib.import_module(f"{rules.__name__}.{module.name}")


def outdated() -> list[str]:
    """Files that are not what the rules give now."""
    gather()
    wanted = {f"{name}.json": each.to_json() for name, each in scenarios().items()}
    names = wanted.keys() | {n for n in os.listdir(DERIVED) if n.endswith(".json")}
    found = []
    for name in sorted(names):
        path = os.path.join(DERIVED, name)
        there = None
        if os.path.exists(path):
            with open(path, encoding="utf-8") as content:
                there = content.read()
        if there != wanted.get(name):
            found.append(name)
    return found


def main() -> int:
    if "--check" in sys.argv[1:]:
        stale = outdated()
        for name in stale:
            print(f"derived/{name}: not what the rules give now")
        return 1 if stale else 0
    gather()
    write(DERIVED, scenarios().values())
    print(f"{len(scenarios())} scenarios")
    return 0


if __name__ == "__main__":
    sys.exit(main())
