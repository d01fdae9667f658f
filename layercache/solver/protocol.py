"""One build as a conversation: the walk asks, the engine answers.

The walk never touches a store, a clock or a file. Anything can drive it: threads, asyncio, another
machine, a log, a test. It ends when `asks` returns nothing and no answer is pending.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol, TypeAlias, runtime_checkable

from layercache._base.classes import frozen
from layercache.errors import LayerCacheError
from layercache.model.descriptors import State
from layercache.model.digests import CacheKey, Fingerprint
from layercache.model.graph import Graph
from layercache.model.instruction import Source
from layercache.model.keys import KeyMaterial, KeyStrategy
from layercache.model.records import Record
from layercache.model.selectors import Selector
from layercache.model.task import Task

__all__ = [
    "Answer",
    "Ask",
    "AskExecute",
    "AskFingerprint",
    "AskLookup",
    "AskSelectors",
    "Decision",
    "Declined",
    "Executed",
    "Failed",
    "Fingerprinted",
    "Found",
    "Lost",
    "Outcome",
    "Selectors",
    "Walk",
    "Walker",
]

Outcome: TypeAlias = Literal["hit", "miss", "skip", "would-run", "undetermined"]
"""`hit` reused, `miss` executed (also when it failed), `skip` not evaluated; the last two
only when executing was declined (planning)."""


@frozen
class AskFingerprint:
    """What does `selector` pick from `subject`? Answer `Fingerprinted`, `Failed`, `Declined`."""

    subject: State | Source
    selector: Selector


@frozen
class AskLookup:
    """Which of these keys have a record? A batch; answer `Found` (in parts if you like)."""

    keys: tuple[CacheKey, ...]


@frozen
class AskSelectors:
    """By which selectors on their parent may these steps be reused? A batch; answer `Selectors`.

    The keys are those of the steps without their parent (`weak_key`). It is asked where the key
    by the whole parent has no record, of steps that the strategy `Narrows`.
    """

    keys: tuple[CacheKey, ...]


@frozen
class AskExecute:
    """Run this task; `vertex` is the first step in graph order that wants it.

    Answer `Executed`, `Failed` or `Declined`.
    """

    key: CacheKey
    task: Task
    material: KeyMaterial
    vertex: int


Ask: TypeAlias = AskFingerprint | AskLookup | AskSelectors | AskExecute


@frozen
class Fingerprinted:
    """The answer to an `AskFingerprint`."""

    ask: AskFingerprint
    fingerprint: Fingerprint


@frozen
class Found:
    """For each key asked, its record or None."""

    records: Mapping[CacheKey, Record | None]


@frozen
class Selectors:
    """For each key asked, the selectors that are known, in the order to try them.

    A later answer replaces an earlier one: what it does not name is not tried any more.
    """

    found: Mapping[CacheKey, Sequence[Selector]]


@frozen
class Executed:
    """The record of an execution that succeeded.

    `reused` when somebody else made it while this build waited to run the same step.
    """

    key: CacheKey
    record: Record
    reused: bool = False


@frozen
class Failed:
    """The ask could not be answered: the source is missing, the command failed."""

    ask: AskFingerprint | AskExecute
    error: LayerCacheError


@frozen
class Declined:
    """The driver does not do this (planning)."""

    ask: AskFingerprint | AskExecute


@frozen
class Lost:
    """Takes a hit back: the record's layer turned out to be gone or damaged.

    The record is banned for this walk; its step is executed, and all that was derived from it
    is decided anew. `ask` is the ask that could not be answered because of it; it is asked
    again when its inputs are there again.
    """

    record: Record
    ask: AskFingerprint | AskExecute | None = None


Answer: TypeAlias = Fingerprinted | Found | Selectors | Executed | Failed | Declined | Lost


@frozen
class Decision:
    """What the walk decided for one step, provisional until the walk is over.

    `vertex` is its number in the graph; `evidence` the name of the selector on the parent that
    made a hit; `until` the steps that an undetermined one waits for, `inputs` the fingerprints
    of its inputs as far as they are known; `tried` the selectors on the parent that a step which
    was not reused might have been reused by.
    """

    vertex: int
    outcome: Outcome
    key: CacheKey | None = None
    material: KeyMaterial | None = None
    record: Record | None = None
    state: State | None = None
    evidence: str | None = None
    error: LayerCacheError | None = None
    until: tuple[int, ...] = ()
    inputs: tuple[Fingerprint | None, ...] = ()
    tried: tuple[Selector, ...] = ()


class Walk(Protocol):
    """One build under way. Not safe for threads: one driver talks to it."""

    def asks(self) -> Sequence[Ask]:
        """What has become askable since the last call; nothing is asked twice."""

    def tell(self, answer: Answer) -> None:
        """Take an answer, in any order."""

    def decisions(self) -> Sequence[Decision]:
        """The decision for each step of the graph, in graph order."""

    def state(self, vertex: int) -> State | None:
        """The state a vertex is bound to, None while it has none."""


@runtime_checkable
class Walker(Protocol):
    """Makes walks. Pure; holds no state of its own."""

    def start(self, graph: Graph, keys: KeyStrategy) -> Walk:
        """Begin a walk to the graph's targets."""
