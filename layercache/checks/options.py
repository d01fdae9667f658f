"""Which rules count: the directive `# check=`, a comment above an instruction, the command line."""

from __future__ import annotations

from collections.abc import Sequence

from layercache._base.classes import frozen
from layercache.checks.rule import CheckRule
from layercache.dockerfile.syntax.faults import nearest
from layercache.errors import UsageError

__all__ = ["CheckOptions"]

_TRUE = ("1", "t", "true")
_FALSE = ("0", "f", "false")


@frozen(kw_only=True)
class CheckOptions:
    """Rules to skip, experimental rules to apply, and whether a violation ends a build.

    `skip_all` and `experimental_all` stand for every rule.
    """

    skip: frozenset[str] = frozenset()
    skip_all: bool = False
    experimental: frozenset[str] = frozenset()
    experimental_all: bool = False
    error: bool = False

    @classmethod
    def parse(cls, text: str, names: Sequence[str]) -> CheckOptions:
        """Read `skip=A,B;error=true;experimental=C`, the value of `# check=`.

        `names` are the known rules. Raises `UsageError` for an unknown option, rule or value.
        """
        skip: frozenset[str] = frozenset()
        experimental: frozenset[str] = frozenset()
        error = False
        for part in filter(None, (part.strip() for part in text.split(";"))):
            key, equals, value = (word.strip() for word in part.partition("="))
            if not equals or key not in ("skip", "experimental", "error"):
                raise UsageError(
                    f"check={text}: {part!r} is not an option: write "
                    "skip=RULE,…; experimental=RULE,…; or error=true"
                )
            if key == "error":
                if value.lower() not in _TRUE + _FALSE:
                    raise UsageError(f"check={text}: error is true or false, not {value!r}")
                error = value.lower() in _TRUE
                continue
            named = frozenset(filter(None, (name.strip() for name in value.split(","))))
            for name in sorted(named - {"all"} - set(names)):
                guess = nearest(name, names)
                raise UsageError(
                    f"check={text}: there is no rule {name}"
                    + (f" (did you mean {guess}?)" if guess else "")
                )
            if key == "skip":
                skip |= named
            else:
                experimental |= named
        return cls(
            skip=skip - {"all"},
            skip_all="all" in skip,
            experimental=experimental - {"all"},
            experimental_all="all" in experimental,
            error=error,
        )

    def __or__(self, more: CheckOptions) -> CheckOptions:
        """Both: what either skips, applies or makes an error."""
        return CheckOptions(
            skip=self.skip | more.skip,
            skip_all=self.skip_all or more.skip_all,
            experimental=self.experimental | more.experimental,
            experimental_all=self.experimental_all or more.experimental_all,
            error=self.error or more.error,
        )

    def applies(self, rule: CheckRule) -> bool:
        """Whether violations of `rule` count."""
        if rule.experimental:
            return self.experimental_all or rule.name in self.experimental
        return not (self.skip_all or rule.name in self.skip)
