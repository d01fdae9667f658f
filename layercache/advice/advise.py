"""Advice on order: the time that another arrangement of a recipe would have saved.

Pure: takes steps with their recorded seconds, and versions of the project with their changes;
returns proposals ranked by the seconds that they would have saved. A proposal is legal as far as
the recipe shows; if only a person can judge it, it is marked as doubtful, with the reason.
"""

from __future__ import annotations

import difflib
import posixpath
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from layercache._base.classes import evolve, frozen
from layercache.advice.reads_of_commands import Project, needed_files
from layercache.trees.patterns import Ignore

__all__ = ["Advice", "AdviceStep", "Place", "RecipeVersion", "advise", "rebuild_seconds"]

Place = tuple[int, int]
"""Stage and index of a step."""


@frozen(kw_only=True)
class AdviceStep:
    """One step of the current recipe.

    `seconds` is its recorded execution time; `sources` the patterns that a COPY or ADD takes
    from the context, `destination` their target; `after` the places of steps of other stages
    that it reads; `line` and `end_line` its lines in the Dockerfile.
    """

    place: Place
    op: str
    text: str
    seconds: float = 0.0
    sources: tuple[str, ...] = ()
    destination: str = ""
    after: tuple[Place, ...] = ()
    line: int = 0
    end_line: int = 0


@frozen
class RecipeVersion:
    """One version of the project (a commit, a recorded build) compared with the previous one.

    `changed` maps the steps that changed by themselves to the context paths that caused it; the
    paths are empty if the instruction itself changed. `name` is for people.
    """

    name: str
    changed: Mapping[Place, tuple[str, ...]]


@frozen(kw_only=True)
class Advice:
    """One proposal.

    `saved_seconds` is the time that it would have saved over the given versions, `rebuilds` the
    number of versions in which it would have saved time; `evidence` describes how that was found;
    `doubt` gives a reason why it may be wrong, and is empty if the recipe alone shows that it is
    right. `diff` is the change to the Dockerfile or ignore file.
    """

    kind: str
    title: str
    saved_seconds: float
    rebuilds: int
    evidence: str
    doubt: str = ""
    diff: str = ""
    place: Place = (-1, -1)


_IGNORABLE: Final = (
    "*.md", "docs", ".git", ".github", ".gitlab-ci.yml", ".gitignore", ".editorconfig", "LICENSE*",
    "CHANGELOG*", ".vscode", ".idea", "tests", "test", "spec", "*.log", ".dockerignore",
    "Dockerfile*", "docker-compose*.yml",
)  # fmt: skip
"""Files that images seldom need: candidates for a line of `.dockerignore`."""


def rebuild_seconds(steps: Sequence[AdviceStep], versions: Sequence[RecipeVersion]) -> float:
    """The cost of all versions: a step runs if it or anything that it builds on changed."""
    return sum(_cost(steps, version.changed)[0] for version in versions)


def _cost(
    steps: Sequence[AdviceStep], changed: Mapping[Place, tuple[str, ...]]
) -> tuple[float, set[Place]]:
    rebuilt: set[Place] = set()
    dirty: set[int] = set()
    total = 0.0
    for step in steps:
        stage = step.place[0]
        if stage in dirty or step.place in changed or any(p in rebuilt for p in step.after):
            dirty.add(stage)
            rebuilt.add(step.place)
            total += step.seconds
    return total, rebuilt


def advise(
    steps: Sequence[AdviceStep],
    versions: Sequence[RecipeVersion],
    *,
    dockerfile: str = "",
    ignore_file: str = "",
    files: Iterable[str] = (),
    read: Callable[[str], str] | None = None,
    name: str = "Dockerfile",
    ignore_name: str = ".dockerignore",
) -> tuple[Advice, ...]:
    """Proposals for `steps` over `versions`, those that save most first.

    `dockerfile` and `ignore_file` are the current texts (`name` and `ignore_name` are used in
    messages), `files` the paths of the context; `read` returns the text of one of them, to follow
    lists of requirements that name further files. Proposals that would have saved nothing are
    left out.
    """
    project = Project(tuple(files), read)
    found: list[Advice] = []
    for number, step in enumerate(steps):
        if step.op != "RUN" or step.seconds <= 0:
            continue
        for earlier in range(number - 1, -1, -1):
            copy = steps[earlier]
            if copy.place[0] != step.place[0]:
                break
            if copy.op in {"COPY", "ADD"} and copy.sources:
                advice = _reordered(steps, versions, earlier, number, dockerfile, project, name)
                if advice is not None:
                    found.append(advice)
    found += _ignored(steps, versions, ignore_file, ignore_name)
    found.sort(key=lambda advice: (-advice.saved_seconds, bool(advice.doubt), advice.title))
    return tuple(_best_for_each(found))


def _best_for_each(found: Sequence[Advice]) -> list[Advice]:
    """One proposal for each step and kind; duplicates are dropped."""
    seen: set[tuple[str, Place, str]] = set()
    kept = []
    for advice in found:
        name = advice.title if advice.kind == "ignore" else ""
        key = (advice.kind, advice.place, name)
        if key not in seen:
            seen.add(key)
            kept.append(advice)
    return kept


def _saving(
    steps: Sequence[AdviceStep],
    after: Sequence[AdviceStep],
    versions: Sequence[RecipeVersion],
    changed_after: Sequence[Mapping[Place, tuple[str, ...]]],
    place: Place,
) -> tuple[float, int]:
    """Seconds saved, and the number of versions in which the step at `place` would not have run."""
    seconds, rebuilds = 0.0, 0
    for version, new in zip(versions, changed_after, strict=True):
        before, ran = _cost(steps, version.changed)
        now, runs = _cost(after, new)
        seconds += before - now
        rebuilds += place in ran and place not in runs
    return seconds, rebuilds


def _reordered(
    steps: Sequence[AdviceStep],
    versions: Sequence[RecipeVersion],
    copy_at: int,
    run_at: int,
    dockerfile: str,
    project: Project,
    name: str,
) -> Advice | None:
    copy, run = steps[copy_at], steps[run_at]
    if not _may_go_below(copy, steps[copy_at + 1 : run_at], run, dockerfile):
        return None
    reads = _reads(run, copy, project)
    needed = set(reads or ())
    for between in steps[copy_at + 1 : run_at]:
        # It would come before what is copied, too.
        if between.op == "RUN":
            also = _reads(between, copy, project)
            if also is None or reads is None:
                return None
            needed.update(also)
    manifests = sorted(needed)
    order = [*steps[:copy_at], *steps[copy_at + 1 : run_at + 1], copy, *steps[run_at + 1 :]]
    changed = [dict(version.changed) for version in versions]
    doubt = ""
    if manifests:
        narrow = evolve(
            copy,
            place=(copy.place[0], -2),
            sources=tuple(manifests),
            text="\n".join(_copies_of(manifests, copy)),
        )
        order.insert(copy_at, narrow)
        for version in changed:
            paths = version.get(copy.place)
            if paths is not None and (not paths or set(paths) & set(manifests)):
                version[narrow.place] = paths
        kind, title = "split", f"copy {', '.join(manifests)} before {run.text!r}, the rest after it"
        if len(manifests) == len([f for f in project.files if _covers(copy, f)]):
            return None  # it takes nothing else already
        doubt = (
            "right if the command reads no other file of the project "
            "(scripts that it runs on installing, local packages)"
        )
    else:
        narrow = None
        kind, title = "move", f"move {copy.text!r} after {run.text!r}"
        if reads is None:
            everything = any(source in {".", ""} or "*" in source for source in copy.sources)
            if everything or _mentions(run.text, copy):
                return None
            doubt = "right only if the command does not read what is copied"
    seconds, rebuilds = _saving(steps, order, versions, changed, run.place)
    if seconds <= 0:
        return None
    return Advice(
        kind=kind,
        title=title,
        saved_seconds=seconds,
        rebuilds=rebuilds,
        evidence=(
            f"in {rebuilds} of {len(versions)} versions {run.text!r} ({run.seconds:.1f} s) "
            f"ran only because {copy.text!r} changed"
        ),
        doubt=doubt,
        diff=_edited(dockerfile, copy, run, narrow, name),
        place=run.place,
    )


def _may_go_below(
    copy: AdviceStep, between: Sequence[AdviceStep], run: AdviceStep, dockerfile: str
) -> bool:
    """Whether `copy` has the same effect after `run` as before it, and after all of `between`."""
    for step in between:
        if step.op in {"COPY", "ADD"} and _nested(step.destination, copy.destination):
            return False  # the one that comes last decides which file stays
        if step.op == "WORKDIR" and not _last_word(copy.text).startswith("/"):
            return False
    lines = dockerfile.splitlines()[copy.end_line : max(run.line - 1, 0)]
    names = {line.split(None, 1)[0].upper() for line in lines if line.strip()}
    return not ("$" in copy.text and names & {"ENV", "ARG"})


def _nested(one: str, other: str) -> bool:
    first, second = one.rstrip("/") + "/", other.rstrip("/") + "/"
    return first.startswith(second) or second.startswith(first)


def _last_word(text: str) -> str:
    return text.rstrip(' "]').replace('"', " ").split()[-1]


def _reads(run: AdviceStep, copy: AdviceStep, project: Project) -> frozenset[str] | None:
    """The files of `copy` that the command is known to read; None if that is not known."""
    needed = needed_files(run.text, _directory(copy), project)
    if not needed:
        return needed
    return frozenset(f for f in needed if _covers(copy, f)) or None


def _copies_of(manifests: Sequence[str], copy: AdviceStep) -> list[str]:
    """Instructions that copy these files alone as `copy` does, one for each directory."""
    flags = []
    for word in copy.text.split()[1:]:
        if not word.startswith("--"):
            break
        flags.append(word)
    groups: dict[str, list[str]] = {}
    for name in manifests:
        groups.setdefault(posixpath.dirname(name), []).append(name)
    return [
        " ".join(["COPY", *flags, *names, posixpath.join(_directory(copy), group, "")])
        for group, names in groups.items()
    ]


def _covers(copy: AdviceStep, path: str) -> bool:
    """Whether `copy` takes `path`."""
    if any(source in {".", ""} for source in copy.sources):
        return True
    return Ignore.of([s.lstrip("/") for s in copy.sources]).matches(path)


def _directory(copy: AdviceStep) -> str:
    return copy.destination if copy.destination.endswith("/") else copy.destination + "/"


def _mentions(command: str, copy: AdviceStep) -> bool:
    """Whether a command names what was copied."""
    names = [posixpath.basename(source.rstrip("/")) for source in copy.sources]
    names.append(posixpath.basename(copy.destination.rstrip("/")))
    return any(len(name) > 1 and "*" not in name and name in command for name in names)


def _ignored(
    steps: Sequence[AdviceStep],
    versions: Sequence[RecipeVersion],
    ignore_file: str,
    ignore_name: str,
) -> list[Advice]:
    """Lines of `.dockerignore` that would have kept steps from changing."""
    found = []
    everything = [p for v in versions for paths in v.changed.values() for p in paths]
    present = Ignore.parse(ignore_file)
    for pattern in _IGNORABLE:
        ignore = Ignore.of([pattern])
        if present.matches(pattern) or not any(ignore.matches(path) for path in everything):
            continue
        changed = []
        for version in versions:
            kept = {}
            for place, paths in version.changed.items():
                left = tuple(path for path in paths if not ignore.matches(path))
                if left or not paths:
                    kept[place] = left
            changed.append(kept)
        copies = [step.place for step in steps if step.op in {"COPY", "ADD"}]
        for place in copies[:1]:
            seconds, _ = _saving(steps, steps, versions, changed, place)
            if seconds <= 0:
                continue
            hits = sum(
                any(ignore.matches(p) for paths in v.changed.values() for p in paths)
                for v in versions
            )
            found.append(
                Advice(
                    kind="ignore",
                    title=f"add {pattern!r} to {ignore_name}",
                    saved_seconds=seconds,
                    rebuilds=hits,
                    evidence=f"files that it matches changed in {hits} of {len(versions)} versions",
                    doubt="right only if the image does not need these files",
                    diff=_unified(ignore_file, _line_added(ignore_file, pattern), ignore_name),
                )
            )
    return found


def _line_added(text: str, line: str) -> str:
    return text + ("" if not text or text.endswith("\n") else "\n") + line + "\n"


def _edited(
    dockerfile: str, copy: AdviceStep, run: AdviceStep, narrow: AdviceStep | None, name: str
) -> str:
    """The Dockerfile with `copy` moved below `run`, as a unified diff."""
    if not dockerfile or not copy.line or not run.end_line:
        return ""
    lines = dockerfile.splitlines(keepends=True)
    moved = lines[copy.line - 1 : copy.end_line]
    between = lines[copy.end_line : run.end_line]
    first = [narrow.text + "\n"] if narrow is not None else []
    new = [*lines[: copy.line - 1], *first, *between, *moved, *lines[run.end_line :]]
    return _unified(dockerfile, "".join(new), name)


def _unified(old: str, new: str, name: str) -> str:
    return "".join(
        difflib.unified_diff(
            old.splitlines(keepends=True), new.splitlines(keepends=True), name, name, n=2
        )
    )
