"""Rules that a cache knows: what makes steps run again, and what makes them go stale."""

from __future__ import annotations

from bisect import bisect_right
from typing import Final

from layercache._base.regex import expression
from layercache.advice.reads_of_commands import MANIFESTS
from layercache.checks.rule import CheckRule
from layercache.checks.subject import Remark, Report, Subject, placed
from layercache.dockerfile._instruction import DockerfileInstruction
from layercache.dockerfile.instructions import Add, Arg, CacheMount, Copy, HereDoc, Run
from layercache.dockerfile.lowering.remote import remote_source
from layercache.dockerfile.lowering.stage_graph import StageText
from layercache.dockerfile.lowering.variables import automatic_arguments
from layercache.errors import DockerfileError
from layercache.model.sources import GitSource, UrlSource

__all__ = ["check_caching"]

INSTALL_AFTER_COPY_ALL: Final = CheckRule(
    "InstallAfterCopyAll",
    "Dependencies are installed before the whole context is copied, not after every edit again.",
    "warning",
    own=True,
)
PACKAGE_INDEX_ALONE: Final = CheckRule(
    "PackageIndexAlone",
    "A package index is updated in the step that installs from it, or it is reused when stale.",
    own=True,
)
CACHE_MOUNT_NOT_LOCKED: Final = CheckRule(
    "CacheMountNotLocked",
    "The caches of apt and dpkg are mounted with sharing=locked.",
    own=True,
)
UNPINNED_SOURCE: Final = CheckRule(
    "UnpinnedSource",
    "ADD of a URL names a checksum, and of a repository a commit.",
    "note",
    own=True,
)
ARG_BEFORE_UNRELATED_STEPS: Final = CheckRule(
    "ArgBeforeUnrelatedSteps",
    "An ARG stands directly before the first step that uses it: each value runs the steps after "
    "it again.",
    "note",
    own=True,
)

_MANAGERS: Final = frozenset(
    {"apt-get", "apt", "aptitude", "apk", "dnf", "microdnf", "yum", "zypper"}
)
_UPDATES: Final = frozenset({"update", "makecache", "refresh"})
_INSTALLS: Final = frozenset(
    {"install", "add", "upgrade", "dist-upgrade", "full-upgrade", "build-dep", "in", "up"}
)
_ENDS: Final = str.maketrans(dict.fromkeys(";&|\n", "\0"))
"""What ends a command of a shell."""

_LOCKED: Final = ("/var/cache/apt", "/var/lib/apt", "/var/lib/dpkg", "/var/cache/debconf")
_WHOLE: Final = frozenset({".", "./", "/", "*", "./*"})
_AUTOMATIC: Final = frozenset(automatic_arguments("", ""))
_COMMIT: Final = expression(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_NAME: Final = expression(r"[A-Za-z_][A-Za-z0-9_]*")


def check_caching(subject: Subject, report: Report) -> None:
    """Apply the rules of this module."""
    for stage in subject.stages.all:
        _order(stage, report)
        _arguments(stage, report)
        for instruction in stage.body:
            if isinstance(instruction, Run):
                _package_index(instruction, report)
                _mounts(instruction, report)
            elif isinstance(instruction, Add):
                _pinned(instruction, report)


def _script(run: Run) -> str:
    """The command of RUN as one text, with the bodies of its here-documents."""
    command = run.command if isinstance(run.command, str) else " ".join(run.command)
    return "\n".join([command, *(heredoc.content for heredoc in run.heredocs)])


def _order(stage: StageText, report: Report) -> None:
    whole: Copy | Add | None = None
    for instruction in stage.body:
        if isinstance(instruction, Copy | Add):
            from_context = not isinstance(instruction, Copy) or instruction.from_ is None
            if from_context and any(source in _WHOLE for source in instruction.sources):
                whole = whole or instruction
        elif isinstance(instruction, Run) and whole is not None:
            script = _script(instruction)
            known = next((name for name in MANIFESTS if name in script), None)
            if known is not None:
                names = ", ".join(MANIFESTS[known][:2])
                report(
                    Remark(
                        INSTALL_AFTER_COPY_ALL,
                        placed(instruction),
                        f"{known} runs again after every edit of any file that line "
                        f"{placed(whole).line} copies",
                        known.split(" ", 1)[0],
                        expected=f"COPY {names} … before it, and the whole context after it",
                    )
                )
                return


def _package_index(run: Run, report: Report) -> None:
    updates: tuple[str, str] | None = None
    script = _script(run).replace("\\\n", " ")
    for command in script.translate(_ENDS).split("\0"):
        manager = ""
        for word in (each.strip("\"'()`").rpartition("/")[2] for each in command.split()):
            if word in _MANAGERS:
                manager = word
            elif manager and word in _INSTALLS:
                return
            elif manager and word in _UPDATES and updates is None:
                updates = manager, word
    if updates is None:
        return
    manager, verb = updates
    report(
        Remark(
            PACKAGE_INDEX_ALONE,
            placed(run),
            f"{manager} {verb} is a step of its own: an install after it is built with the "
            "index of the day when this step last ran",
            manager,
            expected=f"RUN {manager} {verb} && {manager} … in one step",
        )
    )


def _mounts(run: Run, report: Report) -> None:
    for mount in run.mounts:
        if not isinstance(mount, CacheMount):
            continue
        target = (mount.target or "").rstrip("/")
        if target in _LOCKED and (mount.sharing or "shared") == "shared":
            report(
                Remark(
                    CACHE_MOUNT_NOT_LOCKED,
                    placed(run),
                    f"two builds that share the cache mount {target} at once end in an error of "
                    "apt or dpkg",
                    target,
                    expected=f"--mount=type=cache,target={target},sharing=locked",
                )
            )


def _pinned(add: Add, report: Report) -> None:
    for source in add.sources:
        if isinstance(source, HereDoc):
            continue
        try:
            found = remote_source(source, add, add.checksum)
        except DockerfileError:
            continue  # the build reports it
        if isinstance(found, GitSource):
            named = found.reference
            pinned = bool(found.checksum or _COMMIT.fullmatch(named) or "$" in named)
            expected = "#COMMIT in full, or --checksum"
        elif isinstance(found, UrlSource):
            pinned, expected = found.checksum is not None, "--checksum=sha256:…"
        else:
            continue
        if not pinned:
            report(
                Remark(
                    UNPINNED_SOURCE,
                    placed(add),
                    "what this address gives may change, and is asked for in every build",
                    source,
                    expected=expected,
                )
            )


def _arguments(stage: StageText, report: Report) -> None:
    args = [(at, each) for at, each in enumerate(stage.body) if isinstance(each, Arg)]
    names = {name for _, arg in args for name, _ in arg.arguments} - _AUTOMATIC
    uses: dict[str, list[int]] = {name: [] for name in names}
    runs = [0]
    for at, each in enumerate(stage.body):
        for name in names & _named(each):
            uses[name].append(at)
        runs.append(runs[-1] + isinstance(each, Run))
    for at, arg in args:
        for name, _ in arg.arguments:
            places = uses.get(name, [])
            following = bisect_right(places, at)
            if following == len(places):
                continue  # a program may read it from its environment, unnamed
            used = places[following]
            between = runs[used] - runs[at]
            if not between:
                continue
            steps = "a step that does" if between == 1 else f"{between} steps that do"
            report(
                Remark(
                    ARG_BEFORE_UNRELATED_STEPS,
                    placed(arg),
                    f"each new value of {name} runs {steps} not name it: line "
                    f"{placed(stage.body[used]).line} is the first to name it",
                    name,
                    expected=f"ARG {name} directly before its first use",
                )
            )


def _named(instruction: DockerfileInstruction) -> set[str]:
    """The names in an instruction; an ARG has those in its defaults."""
    if isinstance(instruction, Arg):
        text = " ".join(default or "" for _, default in instruction.arguments)
    else:
        text = instruction.text
    return set(_NAME.findall(text))


CACHING_RULES: Final = (
    INSTALL_AFTER_COPY_ALL,
    PACKAGE_INDEX_ALONE,
    CACHE_MOUNT_NOT_LOCKED,
    UNPINNED_SOURCE,
    ARG_BEFORE_UNRELATED_STEPS,
)
