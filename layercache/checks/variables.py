"""Rules of variables: declared before use, platforms, secrets, files that are ignored."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping
from typing import Final

from layercache._base.classes import frozen
from layercache._base.persistent_map import PersistentMap
from layercache.checks.rule import CheckRule
from layercache.checks.subject import Remark, Report, Subject, begins, placed, written
from layercache.dockerfile._instruction import DockerfileInstruction, Location
from layercache.dockerfile.instructions import (
    Add,
    Arg,
    Copy,
    Env,
    Expose,
    From,
    HereDoc,
    Label,
    Stopsignal,
    User,
    Volume,
    Workdir,
)
from layercache.dockerfile.lowering.variables import PROXIES

__all__ = ["check_variables"]

UNDEFINED_ARG_IN_FROM: Final = CheckRule(
    "UndefinedArgInFrom", "FROM uses variables that an ARG before the first FROM declares."
)
UNDEFINED_VAR: Final = CheckRule(
    "UndefinedVar", "A variable is declared in its stage before it is used."
)
REDUNDANT_TARGET_PLATFORM: Final = CheckRule(
    "RedundantTargetPlatform",
    "FROM does not ask for $TARGETPLATFORM, which is the default.",
    "note",
)
SECRETS_USED_IN_ARG_OR_ENV: Final = CheckRule(
    "SecretsUsedInArgOrEnv", "No secret is passed by ARG or ENV: both stay in the image.", "error"
)
INVALID_DEFAULT_ARG_IN_FROM: Final = CheckRule(
    "InvalidDefaultArgInFrom", "With the defaults of its ARGs, each FROM names an image."
)
FROM_PLATFORM_FLAG_CONST_DISALLOWED: Final = CheckRule(
    "FromPlatformFlagConstDisallowed",
    "The platform of FROM is no constant, unless the name of the stage tells it.",
)
COPY_IGNORED_FILE: Final = CheckRule(
    "CopyIgnoredFile", "COPY and ADD take no file that the ignore file leaves out.", "error"
)

_EXPANDED: Final = (Add, Copy, Env, Expose, Label, Stopsignal, User, Volume, Workdir)
"""Instructions whose words the builder expands; those of RUN, CMD and ENTRYPOINT are a shell's."""

_KNOWN: Final = frozenset({*PROXIES, "SOURCE_DATE_EPOCH"})
"""Arguments that need no ARG."""

_SECRET: Final = frozenset(
    {"apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd",
     "secret", "token"}
)  # fmt: skip
_NO_SECRET: Final = frozenset({"public", "file", "version"})


def check_variables(subject: Subject, report: Report) -> None:
    """Apply the rules of this module."""
    globals_ = _preamble(subject, report)
    scopes: dict[str, _Scope] = {}
    for stage in subject.stages.all:
        _from(subject, begins(stage), globals_, report)
        scope = _begin(subject, begins(stage), globals_, scopes)
        for instruction in stage.body:
            _expanded(subject, instruction, scope, globals_, report)
            _declared(subject, instruction, scope, report)
            if isinstance(instruction, Copy | Add):
                _ignored(subject, instruction, scope, report)
        if stage.alias:
            scopes[stage.alias] = scope


class _Scope:
    """The variables of a stage so far; `known` is false if the base image may set others."""

    def __init__(self, values: PersistentMap[str], known: bool) -> None:
        self.values = values
        self.known = known
        self.reported: set[str] = set()

    def set(self, name: str, value: str) -> None:
        self.values = self.values.with_item(name, value)


@frozen
class _Globals:
    """What FROM sees: the ARGs before the first one (`declared`), and the platform arguments.

    `values` are those of this call, `defaults` those of a call without arguments.
    """

    automatic: Mapping[str, str]
    declared: frozenset[str]
    values: Mapping[str, str]
    defaults: Mapping[str, str]


def _preamble(subject: Subject, report: Report) -> _Globals:
    automatic = subject.automatic
    declared: set[str] = set()
    values, defaults = dict(automatic), dict(automatic)
    for arg in subject.preamble:
        for name, default in arg.arguments:
            _secret("ARG", name, placed(arg), report)
            declared.add(name)
            if default is not None:
                for known in (values, defaults):
                    expansion = subject.expansion(default, known)
                    known[name] = default if expansion is None else expansion.text
            if name in subject.arguments:
                values[name] = subject.arguments[name]
    return _Globals(automatic, frozenset(declared), values, defaults)


def _from(subject: Subject, first: From, globals_: _Globals, report: Report) -> None:
    at = placed(first)
    for word in (first.image, first.platform or ""):
        found = subject.expansion(word, globals_.values)
        for name in sorted(found.unset - globals_.declared) if found is not None else ():
            report(
                Remark(
                    UNDEFINED_ARG_IN_FROM,
                    at,
                    f"no ARG before the first FROM declares {name}",
                    name,
                    suggestion=subject.nearest(name, {*globals_.automatic, *globals_.declared}),
                )
            )
    image = subject.expansion(first.image, globals_.defaults)
    if image is not None and "$" in first.image and not _names_an_image(image.text):
        report(
            Remark(
                INVALID_DEFAULT_ARG_IN_FROM,
                at,
                f"with the defaults of the ARGs, {first.image} gives {image.text!r}, which names "
                "no image",
                first.image,
                expected="an ARG with a default that completes the name",
            )
        )
    if first.platform is None:
        return
    platform = subject.expansion(first.platform, globals_.values)
    if platform is None:
        return
    target = globals_.values["TARGETPLATFORM"]
    if platform.used == {"TARGETPLATFORM"} and platform.text == target:
        report(
            Remark(
                REDUNDANT_TARGET_PLATFORM,
                at,
                f"--platform={first.platform} is what FROM does without it",
                "--platform",
            )
        )
    if not platform.used and not platform.unset and platform.text:
        parts = platform.text.split("/")
        if not any(part in (first.alias or "") for part in parts[:2]):
            report(
                Remark(
                    FROM_PLATFORM_FLAG_CONST_DISALLOWED,
                    at,
                    f"the platform {platform.text} is a constant: this stage is the same for "
                    "every target",
                    first.platform,
                    expected="--platform=$BUILDPLATFORM, or a name of the stage that tells the "
                    "platform",
                )
            )


def _names_an_image(text: str) -> bool:
    """Whether `text` can be an image reference; the full grammar is the resolver's."""
    name, _, digest = text.partition("@")
    path, _, tag = name.rpartition(":") if ":" in name.rpartition("/")[2] else (name, "", "x")
    return (
        bool(path)
        and bool(tag)
        and not text.endswith(("@", "/", ":"))
        and not path.startswith(("/", ":", "-", "."))
        and "//" not in path
        and not any(char.isspace() for char in text)
        and path.rpartition("/")[2] == path.rpartition("/")[2].lower()
        and (not digest or ":" in digest)
    )


def _begin(
    subject: Subject, first: From, globals_: _Globals, scopes: Mapping[str, _Scope]
) -> _Scope:
    image = subject.expansion(first.image, globals_.values)
    name = "" if image is None else image.text
    parent = scopes.get(name.lower())
    if parent is not None:
        return _Scope(parent.values, parent.known)
    environment = {} if name == "scratch" else subject.environment(name) if name else None
    return _Scope(PersistentMap({"PATH": "", **(environment or {})}), environment is not None)


def _expanded(
    subject: Subject,
    instruction: DockerfileInstruction,
    scope: _Scope,
    globals_: _Globals,
    report: Report,
) -> None:
    words: Iterable[str]
    if isinstance(instruction, Arg):
        words = [
            default
            for name, default in instruction.arguments
            if default is not None and name not in subject.arguments
        ]
    elif isinstance(instruction, _EXPANDED):
        _, flags, rest = written(instruction, subject.parsed.escape)
        words = [rest, *flags]
    else:
        return
    unset: set[str] = set()
    for word in words:
        found = subject.expansion(word, scope.values)
        unset |= found.unset if found is not None else set()
    at = placed(instruction)
    for name in sorted(unset - scope.reported - _KNOWN):
        if not (name[0].isalpha() or name[0] == "_"):
            continue
        scope.reported.add(name)
        if name in globals_.declared or name in globals_.automatic:
            message = (
                f"${name} is declared before the first FROM, and not in this stage"
                if name in globals_.declared
                else f"${name} reaches a stage that declares it"
            )
            report(Remark(UNDEFINED_VAR, at, message, name, expected=f"ARG {name} after FROM"))
            continue
        guess = subject.nearest(name, scope.values)
        if scope.known or guess is not None:
            message = f"${name} is declared nowhere before"
            report(Remark(UNDEFINED_VAR, at, message, name, suggestion=guess))


def _declared(
    subject: Subject, instruction: DockerfileInstruction, scope: _Scope, report: Report
) -> None:
    """Keep what an instruction declares."""
    at = placed(instruction)
    if isinstance(instruction, Arg):
        for name, default in instruction.arguments:
            _secret("ARG", name, at, report)
            # Declared without a value it is empty on purpose.
            value = subject.arguments.get(name, default)
            if value is not None or name not in scope.values:
                scope.set(name, value or "")
    elif isinstance(instruction, Env):
        for name, value in instruction.pairs:
            _secret("ENV", name, at, report)
            expansion = subject.expansion(value, scope.values)
            scope.set(name, value if expansion is None else expansion.text)


def _secret(op: str, name: str, at: Location, report: Report) -> None:
    parts = set(name.lower().split("_"))
    if parts & _SECRET and not parts & _NO_SECRET:
        report(
            Remark(
                SECRETS_USED_IN_ARG_OR_ENV,
                at,
                f"the value of {op} {name} stays readable in the image and its history",
                name,
                expected=f"RUN --mount=type=secret,id={name.lower()}",
            )
        )


def _ignored(subject: Subject, instruction: Copy | Add, scope: _Scope, report: Report) -> None:
    ignore = subject.ignore
    if ignore is None or any(rule.negated for rule in ignore.rules):
        return  # with an exception, a directory that is left out may hold files that are not
    if isinstance(instruction, Copy) and instruction.from_ is not None:
        return
    for source in instruction.sources:
        if isinstance(source, HereDoc) or "://" in source or source.startswith("git@"):
            continue
        word = subject.expansion(source, scope.values)
        if word is None or word.unset:
            continue
        path = posixpath.normpath("/" + word.text).lstrip("/")
        if not path:
            if not any(rule.pattern in ("*", "**", "**/*") for rule in ignore.rules):
                continue
            path = "."
        if path == "." or ignore.matches(path):
            report(
                Remark(
                    COPY_IGNORED_FILE,
                    placed(instruction),
                    f"{ignore.name} leaves out {path}, which this {instruction.op} takes",
                    source,
                    expected=f"another source, or another pattern in {ignore.name}",
                )
            )


VARIABLE_RULES: Final = (
    UNDEFINED_ARG_IN_FROM,
    UNDEFINED_VAR,
    REDUNDANT_TARGET_PLATFORM,
    SECRETS_USED_IN_ARG_OR_ENV,
    INVALID_DEFAULT_ARG_IN_FROM,
    FROM_PLATFORM_FLAG_CONST_DISALLOWED,
    COPY_IGNORED_FILE,
)
