"""Rules that a cache knows: what makes steps run again, and what makes them go stale."""

from __future__ import annotations

from typing import Final

from layercache._base.regex import expression
from layercache.advice.reads_of_commands import MANIFESTS
from layercache.checks.rule import CheckRule
from layercache.checks.subject import CheckedStage, Remark, Report, Subject, bodies, placed
from layercache.dockerfile._instruction import DockerfileInstruction
from layercache.dockerfile.instructions import Add, Arg, CacheMount, Copy, HereDoc, Run
from layercache.dockerfile.lowering.variables import automatic_arguments

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

_UPDATES: Final = expression(
    r"\b(apt-get|apt|aptitude|apk|dnf|microdnf|yum|zypper)\s(?:[^;&|]*\s)?"
    r"(update|makecache|refresh)\b"
)
_INSTALLS: Final = expression(
    r"\b(apt-get|apt|aptitude|apk|dnf|microdnf|yum|zypper)\s[^;&|]*"
    r"\b(install|add|upgrade|dist-upgrade|full-upgrade|build-dep|in|up)\b"
)
_LOCKED: Final = ("/var/cache/apt", "/var/lib/apt", "/var/lib/dpkg", "/var/cache/debconf")
_WHOLE: Final = frozenset({".", "./", "/", "*", "./*"})
_AUTOMATIC: Final = frozenset(automatic_arguments("", ""))
_COMMIT: Final = expression(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_NAME: Final = expression(r"[A-Za-z_][A-Za-z0-9_]*")


def check_caching(subject: Subject, report: Report) -> None:
    """Apply the rules of this module."""
    for stage in subject.stages:
        _order(stage, report)
        _arguments(stage, report)
    for _, instruction in bodies(subject):
        if isinstance(instruction, Run):
            _package_index(instruction, report)
            _mounts(instruction, report)
        elif isinstance(instruction, Add):
            _pinned(instruction, report)


def _script(run: Run) -> str:
    """The command of RUN as one text, with the bodies of its here-documents."""
    command = run.command if isinstance(run.command, str) else " ".join(run.command)
    return "\n".join([command, *(heredoc.content for heredoc in run.heredocs)])


def _order(stage: CheckedStage, report: Report) -> None:
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
    script = _script(run)
    found = _UPDATES.search(script)
    if found is None or _INSTALLS.search(script):
        return
    report(
        Remark(
            PACKAGE_INDEX_ALONE,
            placed(run),
            f"{found[1]} {found[2]} is a step of its own: an install after it is built with the "
            "index of the day when this step last ran",
            found[1],
            expected=f"RUN {found[1]} {found[2]} && {found[1]} … in one step",
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
    if add.checksum is not None:
        return
    for source in add.sources:
        if isinstance(source, HereDoc):
            continue
        address, _, reference = source.partition("#")
        is_git = address.endswith(".git") or address.startswith(("git@", "git://", "ssh://"))
        if is_git:
            commit = reference.partition(":")[0]
            if _COMMIT.fullmatch(commit) or "checksum=" in source or "$" in commit:
                continue
            expected = "#COMMIT in full, or --checksum"
        elif source.startswith(("http://", "https://")):
            expected = "--checksum=sha256:…"
        else:
            continue
        report(
            Remark(
                UNPINNED_SOURCE,
                placed(add),
                "what this address gives may change, and is asked for in every build",
                source,
                expected=expected,
            )
        )


def _arguments(stage: CheckedStage, report: Report) -> None:
    for number, arg in enumerate(stage.body):
        if not isinstance(arg, Arg):
            continue
        for name, _ in arg.arguments:
            later = stage.body[number + 1 :]
            used = next((i for i, each in enumerate(later) if _uses(each, name)), None)
            if used is None or name in _AUTOMATIC:
                continue  # a program may read it from its environment, unnamed
            runs = sum(isinstance(each, Run) for each in later[:used])
            if not runs:
                continue
            steps = "a step that does" if runs == 1 else f"{runs} steps that do"
            report(
                Remark(
                    ARG_BEFORE_UNRELATED_STEPS,
                    placed(arg),
                    f"each new value of {name} runs {steps} not name it: line "
                    f"{placed(later[used]).line} is the first to name it",
                    name,
                    expected=f"ARG {name} directly before its first use",
                )
            )


def _uses(instruction: DockerfileInstruction, name: str) -> bool:
    if isinstance(instruction, Arg):
        return any(name in _NAME.findall(default or "") for _, default in instruction.arguments)
    return name in _NAME.findall(instruction.text)


CACHING_RULES: Final = (
    INSTALL_AFTER_COPY_ALL,
    PACKAGE_INDEX_ALONE,
    CACHE_MOUNT_NOT_LOCKED,
    UNPINNED_SOURCE,
    ARG_BEFORE_UNRELATED_STEPS,
)
