"""Rules of variables: declared before use, platforms, secrets, files that are ignored."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping
from typing import Final

from layercache.checks.rule import CheckRule
from layercache.checks.subject import CheckedStage, Remark, Report, Subject, placed, written
from layercache.dockerfile._instruction import DockerfileInstruction, Location
from layercache.dockerfile.instructions import (
    Add,
    Arg,
    Copy,
    Env,
    Expose,
    HereDoc,
    Label,
    Stopsignal,
    User,
    Volume,
    Workdir,
)
from layercache.dockerfile.lowering.variables import PROXIES, automatic_arguments
from layercache.dockerfile.syntax.expansion import Expansion, expand
from layercache.dockerfile.syntax.faults import nearest
from layercache.errors import DockerfileError

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
    for stage in subject.stages:
        _from(subject, stage, globals_, report)
        scope = _begin(subject, stage, globals_, scopes)
        for instruction in stage.body:
            _expanded(subject, instruction, scope, globals_, report)
            _declared(subject, instruction, scope, report)
            if isinstance(instruction, Copy | Add):
                _ignored(subject, instruction, scope, report)
        if stage.first.alias:
            scopes[stage.first.alias] = scope


class _Scope:
    """The variables of a stage so far; `known` is false if the base image may set others."""

    def __init__(self, values: Mapping[str, str], known: bool) -> None:
        self.values = dict(values)
        self.known = known
        self.reported: set[str] = set()


def _try(word: str, values: Mapping[str, str], escape: str) -> Expansion | None:
    """The expansion of `word`; None if it is malformed, which the build itself reports."""
    try:
        return expand(word, values, escape=escape)
    except DockerfileError:
        return None


def _automatic(subject: Subject) -> dict[str, str]:
    platform = subject.arguments.get("TARGETPLATFORM", "linux/amd64")
    return automatic_arguments(platform, subject.arguments.get("BUILDPLATFORM", platform))


def _preamble(subject: Subject, report: Report) -> dict[str, str | None]:
    """The global arguments with their values; None where one has neither default nor value."""
    found: dict[str, str | None] = {}
    for arg in subject.preamble:
        for name, default in arg.arguments:
            _secret("ARG", name, placed(arg), report)
            value = subject.arguments.get(name)
            if value is None and default is not None:
                known = {**_automatic(subject), **_given(found)}
                expansion = _try(default, known, subject.parsed.escape)
                value = default if expansion is None else expansion.text
            found[name] = value
    return found


def _given(values: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in values.items() if value is not None}


def _from(
    subject: Subject, stage: CheckedStage, globals_: Mapping[str, str | None], report: Report
) -> None:
    first, at, escape = stage.first, placed(stage.first), subject.parsed.escape
    automatic = _automatic(subject)
    values = {**automatic, **_given(globals_)}
    for word in (first.image, first.platform or ""):
        found = _try(word, values, escape)
        for name in sorted(found.unset - set(globals_)) if found is not None else ():
            _undefined(
                UNDEFINED_ARG_IN_FROM,
                at,
                name,
                f"no ARG before the first FROM declares {name}",
                {**automatic, **dict.fromkeys(globals_, "")},
                report,
            )
    defaults = dict(automatic)
    for arg in subject.preamble:
        for name, default in arg.arguments:
            made = None if default is None else _try(default, defaults, escape)
            if made is not None:
                defaults[name] = made.text
    image = _try(first.image, defaults, escape)
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
    platform = _try(first.platform, values, escape)
    if platform is None:
        return
    if platform.used == {"TARGETPLATFORM"} and platform.text == values["TARGETPLATFORM"]:
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
    subject: Subject,
    stage: CheckedStage,
    globals_: Mapping[str, str | None],
    scopes: Mapping[str, _Scope],
) -> _Scope:
    values = {**_automatic(subject), **_given(globals_)}
    image = _try(stage.first.image, values, subject.parsed.escape)
    name = "" if image is None else image.text
    parent = scopes.get(name.lower())
    if parent is not None:
        return _Scope(parent.values, parent.known)
    if name == "scratch":
        return _Scope({}, True)
    environment = subject.environment(name) if name else None
    return _Scope(environment or {}, environment is not None)


def _expanded(
    subject: Subject,
    instruction: DockerfileInstruction,
    scope: _Scope,
    globals_: Mapping[str, str | None],
    report: Report,
) -> None:
    escape = subject.parsed.escape
    if isinstance(instruction, Arg):
        words: Iterable[str] = [
            default
            for name, default in instruction.arguments
            if default is not None and name not in subject.arguments
        ]
    elif isinstance(instruction, _EXPANDED):
        words = [written(instruction, escape)[2], *written(instruction, escape)[1]]
    else:
        return
    values = {"PATH": "", **scope.values}
    unset: set[str] = set()
    for word in words:
        found = _try(word, values, escape)
        unset |= found.unset if found is not None else set()
    for name in sorted(unset - scope.reported - _KNOWN):
        if not (name[0].isalpha() or name[0] == "_"):
            continue
        scope.reported.add(name)
        if name in globals_:
            report(
                Remark(
                    UNDEFINED_VAR,
                    placed(instruction),
                    f"${name} is declared before the first FROM, and not in this stage",
                    name,
                    expected=f"ARG {name} after FROM",
                )
            )
        elif name in _automatic(subject):
            report(
                Remark(
                    UNDEFINED_VAR,
                    placed(instruction),
                    f"${name} reaches a stage that declares it",
                    name,
                    expected=f"ARG {name} after FROM",
                )
            )
        elif scope.known or nearest(name, values) is not None:
            _undefined(
                UNDEFINED_VAR,
                placed(instruction),
                name,
                f"${name} is declared nowhere before",
                values,
                report,
            )


def _undefined(
    rule: CheckRule,
    at: Location,
    name: str,
    message: str,
    known: Mapping[str, str],
    report: Report,
) -> None:
    report(Remark(rule, at, message, name, suggestion=nearest(name, known)))


def _declared(
    subject: Subject, instruction: DockerfileInstruction, scope: _Scope, report: Report
) -> None:
    """Remark what an instruction declares."""
    at = placed(instruction)
    if isinstance(instruction, Arg):
        for name, default in instruction.arguments:
            _secret("ARG", name, at, report)
            # Declared without a value it is empty on purpose.
            value = subject.arguments.get(name, default)
            scope.values.setdefault(name, value or "")
            if value is not None:
                scope.values[name] = value
    elif isinstance(instruction, Env):
        for name, value in instruction.pairs:
            _secret("ENV", name, at, report)
            expansion = _try(value, scope.values, subject.parsed.escape)
            scope.values[name] = value if expansion is None else expansion.text


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
        word = _try(source, scope.values, subject.parsed.escape)
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
