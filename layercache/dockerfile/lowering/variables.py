"""Variables of a stage: ENV and ARG in one ordered scope, and predefined arguments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from layercache.dockerfile.syntax.expansion import process_word, process_words
from layercache.dockerfile.syntax.limits import Budget

__all__ = ["NOT_IN_ENVIRONMENT", "PROXIES", "Variables", "automatic_arguments", "proxy_variables"]

PROXIES: Final = tuple(
    name
    for upper in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
    for name in (upper, upper.lower())
)
"""Arguments that reach every command undeclared, and count in no key then (Dockerfile
reference, "Predefined ARGs")."""


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
        if variables.get(name) is None and name not in variables.declared
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

_SHARED: Final = 4
"""The same for a command that sees what the one before it sees: its key still names them all."""


class _Noting(Mapping[str, str]):
    """Values for expansion; records whether one that came from a build argument was read."""

    def __init__(self, values: Mapping[str, str], private: set[str], noted: list[bool]) -> None:
        self._values = values
        self._private = private
        self._noted = noted

    def __getitem__(self, name: str) -> str:
        value = self._values[name]
        if name in self._private:
            self._noted[0] = True
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


class Variables:
    """Names and values in the order in which a command sees them.

    Setting a name again moves it to the end, as BuildKit does: order counts in keys.
    """

    def __init__(
        self,
        values: Mapping[str, str] | None = None,
        *,
        arguments: frozenset[str] = frozenset(),
        private: frozenset[str] = frozenset(),
        escape: str = "\\",
        budget: Budget | None = None,
    ) -> None:
        self._values = dict(values or {})
        self._arguments = set(arguments)
        self._private = set(private | arguments)
        self._noted = [False]
        self._shown = _Noting(self._values, self._private, self._noted)
        self._escape = escape
        self._budget = budget or Budget()
        self._declared: set[str] = set()
        self._items: tuple[tuple[tuple[str, str], ...], tuple[str, ...]] | None = None

    @property
    def values(self) -> Mapping[str, str]:
        return self._values

    @property
    def arguments(self) -> frozenset[str]:
        """Names whose value comes from ARG and not from ENV."""
        return frozenset(self._arguments)

    @property
    def declared(self) -> frozenset[str]:
        """Names that an ARG of this scope declares, with or without a value."""
        return frozenset(self._declared)

    def seen(self) -> tuple[tuple[tuple[str, str], ...], tuple[str, ...]]:
        """The variables that a command sees, in order, and the names whose values come from
        arguments.

        Rebuilt only after a change, so that many commands share it. All of it counts for each
        command: without a bound, computing the keys of many commands after many variables would
        take
        minutes.
        """
        if self._items is None:
            self._budget.spend(_PAIR * len(self._values))
            pairs = tuple(self._values.items())
            self._items = (pairs, tuple(n for n, _ in pairs if n in self._private))
        else:
            self._budget.spend(_SHARED * len(self._values))
        return self._items

    def get(self, name: str) -> str | None:
        return self._values.get(name)

    @property
    def private(self) -> frozenset[str]:
        """Names whose value is that of an argument, or was expanded from one."""
        return frozenset(self._private)

    def from_argument(self) -> bool:
        """Whether any expansion since the last call used an argument."""
        noted, self._noted[0] = self._noted[0], False
        return noted

    def set(self, name: str, value: str, *, private: bool = False) -> None:
        """ENV; `private` if the value was expanded from an argument."""
        self._items = None
        (self._private.add if private else self._private.discard)(name)
        self._values.pop(name, None)
        self._values[name] = value
        self._arguments.discard(name)

    def declare(self, name: str, value: str | None) -> None:
        """ARG: without a value it has no effect and leaves an existing variable unchanged."""
        self._declared.add(name)
        self._items = None
        if value is not None and name not in NOT_IN_ENVIRONMENT:
            self._values.pop(name, None)
            self._values[name] = value
            self._arguments.add(name)
            self._private.add(name)

    def snapshot(self) -> Variables:
        """A copy, without the declared names."""
        return Variables(
            self._values,
            arguments=self.arguments,
            private=self.private,
            escape=self._escape,
            budget=self._budget,
        )

    def expand(self, word: str) -> str:
        """Expand one word to one text."""
        return process_word(word, self._shown, escape=self._escape, budget=self._budget)

    def expand_words(self, word: str) -> list[str]:
        """Expand one word to any number of words."""
        return process_words(word, self._shown, escape=self._escape, budget=self._budget)

    def expand_body(self, text: str) -> str:
        """Expand the body of a here-document, in which quotes have no meaning."""
        return process_word(text, self._shown, quotes=False, budget=self._budget)
