"""The solver: decides which steps run, which are reused, and under which keys.

Imports `trees`, `model` and the packages before them, and does no I/O: a walk asks questions and is
told the answers. Start at `protocol` (asks and answers), then `walker`, `strategies` and
`narrowing`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from layercache._base.lazy import lazily

if TYPE_CHECKING:
    from layercache.solver.protocol import (
        Answer,
        Ask,
        AskExecute,
        AskFingerprint,
        AskLookup,
        AskSelectors,
        Decision,
        Declined,
        Executed,
        Failed,
        Fingerprinted,
        Found,
        Lost,
        Outcome,
        Selectors,
        Walk,
        Walker,
    )
    from layercache.solver.step_filter import StepSelection, step_selector
    from layercache.solver.strategies import ChainKeys, ContentKeys
    from layercache.solver.walker import GraphWalk, GraphWalker

__all__ = [
    "Answer",
    "Ask",
    "AskExecute",
    "AskFingerprint",
    "AskLookup",
    "AskSelectors",
    "ChainKeys",
    "ContentKeys",
    "Decision",
    "Declined",
    "Executed",
    "Failed",
    "Fingerprinted",
    "Found",
    "GraphWalk",
    "GraphWalker",
    "Lost",
    "Outcome",
    "Selectors",
    "StepSelection",
    "Walk",
    "Walker",
    "step_selector",
]

if not TYPE_CHECKING:  # a type checker shall know a misspelt name when it sees one
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "protocol": (
                "Answer Ask AskExecute AskFingerprint AskLookup AskSelectors Decision "
                "Declined Executed Failed Fingerprinted Found Lost Outcome Selectors Walk "
                "Walker"
            ),
            "step_filter": "StepSelection step_selector",
            "strategies": "ChainKeys ContentKeys",
            "walker": "GraphWalk GraphWalker",
        },
    )
