"""Variables of a stage: ENV and ARG in one ordered scope, and predefined arguments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from layercache._base.persistent_map import PersistentMap
from layercache.dockerfile.syntax.expansion import process_word, process_words
from layercache.dockerfile.syntax.limits import Budget
from layercache.model.environment import Environment, is_large

__all__ = [
    "HOSTNAME",
    "NOT_IN_ENVIRONMENT",
    "PROXIES",
    "Variables",
    "automatic_arguments",
    "proxy_variables",
]

PROXIES: Final = tuple(
    name
    for upper in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
    for name in (upper, upper.lower())
)
"""Arguments that reach every command undeclared, and count in no key then (Dockerfile
reference, "Predefined ARGs")."""


HOSTNAME: Final = "BUILDKIT_SANDBOX_HOSTNAME"
"""The argument that gives the host name of all commands."""

NOT_IN_ENVIRONMENT: Final = frozenset({"BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"})
"""Arguments for the builder itself: even if declared, they reach no command."""


def proxy_variables(args: Mapping[str, str], variables: Variables) -> tuple[tuple[str, str], ...]:
    """The proxies that were passed, in both letter cases, except those that the stage itself
    sets.
    """
    found: dict[str, str] = {}
    for upper in PROXIES[::2]:
        value = args.get(upper.lower(), args.get(upper))
        if value is not None:
            found |= {upper: value, upper.lower(): value}
    return tuple(
        (name, value)
        for name, value in found.items()
        if variables.get(name) is None and not variables.declares(name)
    )


def automatic_arguments(target: str, build: str, stage: str | None = None) -> dict[str, str]:
    """TARGETPLATFORM and the like (Dockerfile reference, "Automatic platform ARGs").

    `stage` is the name of the target, or "default" if it has none.
    """
    found = {"TARGETSTAGE": stage or "default"}
    for prefix, platform in (("TARGET", target), ("BUILD", build)):
        os, _, rest = platform.partition("/")
        architecture, _, variant = rest.partition("/")
        found[f"{prefix}PLATFORM"] = platform
        found[f"{prefix}OS"] = os
        found[f"{prefix}OSVERSION"] = ""
        found[f"{prefix}ARCH"] = architecture
        found[f"{prefix}VARIANT"] = variant
    return found


_PAIR: Final = 32
"""Steps that one variable of one command counts for: memory, and not only time."""


class _Noting(Mapping[str, str]):
    """Values for expansion; records whether one that came from a build argument was read."""

    def __init__(self, of: Variables) -> None:
        self._of = of
        self.noted = False

    def __getitem__(self, name: str) -> str:
        value = self._of.get(name)
        if value is None:
            raise KeyError(name)
        if self._of.is_private(name):
            self.noted = True
        return value

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in self._of.environment)

    def __len__(self) -> int:
        return len(self._of.environment)


class Variables:
    """Names and values in the order in which a command sees them.

    Setting a name again moves it to the end, as BuildKit does: order counts in keys. A snapshot
    costs nothing, however many there are.
    """

    def __init__(self, *, escape: str = "\\", budget: Budget | None = None) -> None:
        self.environment = Environment()
        self._arguments: PersistentMap[bool] = PersistentMap()
        self._private: PersistentMap[bool] = PersistentMap()
        self._shown = _Noting(self)
        self._escape = escape
        self._budget = budget or Budget()
        self._declared: set[str] = set()
        self._items: tuple[tuple[tuple[str, str], ...] | Environment, tuple[str, ...]] | None = None

    @property
    def declared(self) -> frozenset[str]:
        """Names that an ARG of this scope declares, with or without a value."""
        return frozenset(self._declared)

    def declares(self, name: str) -> bool:
        """Whether an ARG of this scope declares `name`."""
        return name in self._declared

    def seen(self) -> tuple[tuple[tuple[str, str], ...] | Environment, tuple[str, ...]]:
        """What a command sees, in order, and the names whose values come from arguments.

        Made anew only after a change, so that many commands share it. A large environment stays
        one value, private as a whole: it is never written down for each command.
        """
        if self._items is None:
            if is_large(self.environment):
                self._items = (self.environment, ())
            else:
                pairs = self.environment.pairs
                self._budget.spend(_PAIR * len(pairs))
                self._items = (pairs, tuple(n for n, _ in pairs if n in self._private))
        self._budget.spend(1)
        return self._items

    def get(self, name: str) -> str | None:
        return self.environment.get(name)

    def is_argument(self, name: str) -> bool:
        """Whether the value of `name` comes from ARG and not from ENV."""
        return name in self._arguments

    def is_private(self, name: str) -> bool:
        """Whether the value of `name` is that of an argument, or was expanded from one."""
        return name in self._private

    def from_argument(self) -> bool:
        """Whether anything expanded since this was last asked came from an argument."""
        noted, self._shown.noted = self._shown.noted, False
        return noted

    def set(
        self, name: str, value: str, *, private: bool = False, before: str | None = None
    ) -> None:
        """ENV; `private` if the value was expanded from an argument. At the end, or `before`."""
        self._items = None
        self._mark_private(name, private)
        self.environment = self.environment.with_variable(name, value, before=before)
        self._arguments = self._arguments.without(name)

    def move(self, name: str, *, before: str | None) -> None:
        """Put a variable before another, None for the end."""
        value = self.environment.get(name)
        if value is not None:
            self._items = None
            self.environment = self.environment.with_variable(name, value, before=before)

    def _mark_private(self, name: str, private: bool) -> None:
        marks = self._private
        self._private = marks.with_item(name, True) if private else marks.without(name)

    def declare(self, name: str, value: str | None) -> None:
        """ARG: without a value it has no effect and leaves an existing variable unchanged."""
        self._declared.add(name)
        self._items = None
        if value is not None and name not in NOT_IN_ENVIRONMENT:
            self.environment = self.environment.with_variable(name, value)
            self._arguments = self._arguments.with_item(name, True)
            self._mark_private(name, private=True)

    def snapshot(self) -> Variables:
        """A copy; the names declared are not taken along."""
        copy = Variables(escape=self._escape, budget=self._budget)
        copy.environment = self.environment
        copy._arguments, copy._private, copy._items = self._arguments, self._private, self._items
        return copy

    def expand(self, word: str) -> str:
        """Expand one word to one text."""
        return process_word(word, self._shown, escape=self._escape, budget=self._budget)

    def expand_words(self, word: str) -> list[str]:
        """Expand one word to any number of words."""
        return process_words(word, self._shown, escape=self._escape, budget=self._budget)

    def expand_body(self, text: str) -> str:
        """Expand the body of a here-document, in which quotes have no meaning."""
        return process_word(text, self._shown, quotes=False, budget=self._budget)
