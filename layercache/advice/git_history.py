"""The project's own Git history as versions of a context: what changed for each step, and when.

Nothing is checked out and nothing runs: a commit's files are known by the digests that Git has
of them, so that planning a commit reads names and digests only.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence

from blake3 import blake3

from layercache.advice.advise import AdviceStep, Place, Version
from layercache.dockerfile.lowering.lower import lower
from layercache.dockerfile.lowering.options import BaseImage, Lowered, Options
from layercache.dockerfile.recipe import Dockerfile
from layercache.errors import SourceError, UsageError
from layercache.model.descriptors import SCRATCH
from layercache.model.graph import Step
from layercache.model.image_config import ImageConfig
from layercache.model.operations import SOURCE, CopyFiles
from layercache.model.selectors import Files
from layercache.model.sources import ContextSource
from layercache.model.tree import Node
from layercache.trees.in_memory import DictTree
from layercache.trees.listing import diff_listings, listing
from layercache.trees.patterns import IGNORE_FILE, Ignore
from layercache.trees.select import fingerprint

__all__ = ["git_versions", "plain_graph", "recorded_seconds", "steps_of"]


def plain_graph(recipe: Dockerfile, target: str | None, args: Mapping[str, str]) -> Lowered:
    """The recipe's graph with every base image taken by its name alone; asks nobody."""
    options = Options(args=args, target=target, escape=recipe.escape)
    known: dict[object, BaseImage] = {}
    while True:
        lowered = lower(recipe.instructions, options, known)  # type: ignore[arg-type]
        if isinstance(lowered, Lowered):
            return lowered
        for need in lowered.images:
            known[need] = BaseImage(need.name, SCRATCH, ImageConfig())


def steps_of(
    lowered: Lowered, recipe: Dockerfile, seconds: Mapping[str, float]
) -> tuple[AdviceStep, ...]:
    """The steps of the graph for `advise`; `seconds` by the text of the instruction."""
    places: dict[int, Place] = {}
    found = []
    lines = {
        i.location.line: i.location.end_line for i in recipe.instructions if i.location is not None
    }
    for number, vertex in enumerate(lowered.graph.vertices):
        if not isinstance(vertex, Step):
            continue
        origin = vertex.origin
        place = places[number] = (origin.stage, origin.index)
        operation = vertex.instruction
        after = [places[e.vertex] for e in vertex.inputs if e.vertex in places]
        context = _context_files(lowered, vertex)
        found.append(
            AdviceStep(
                place=place,
                op=origin.op,
                text=origin.text,
                seconds=seconds.get(origin.text, 0.0),
                sources=context.patterns if context is not None else (),
                destination=operation.destination if isinstance(operation, CopyFiles) else "",
                after=tuple(p for p in after if p[0] != place[0]),
                line=origin.line,
                end_line=lines.get(origin.line, origin.line),
            )
        )
    return tuple(found)


def _context_files(lowered: Lowered, step: Step) -> Files | None:
    """What a COPY or ADD takes from the main context."""
    for edge in step.inputs:
        source = lowered.graph.vertices[edge.vertex]
        if edge.role == SOURCE and source == ContextSource() and isinstance(edge.selector, Files):
            return edge.selector
    return None


def git_versions(
    context: str, lowered: Lowered, count: int, ignore_file: str = IGNORE_FILE
) -> tuple[tuple[Version, ...], str]:
    """The last `count` commits of the project in `context` against the one before each.

    `ignore_file` is the path in the context of the ignore file that counts. Also says in words
    what was looked at. Raises `UsageError` when the context is in no repository or has fewer
    than two commits.
    """
    root = os.path.realpath(context)
    prefix = _git(root, "rev-parse", "--show-prefix").strip()
    commits = _git(root, "rev-list", "--first-parent", f"-n{count + 1}", "HEAD").split()[::-1]
    if len(commits) < 2:
        raise UsageError(f"{context}: there are not two commits to compare")
    versions = []
    before: dict[Place, tuple[str, tuple[object, ...]]] = {}
    for number, commit in enumerate(commits):
        now = _state_of(_tree_of(root, commit, prefix, ignore_file), lowered)
        if number:
            versions.append(Version(commit[:12], _changed(before, now)))
        before = now
    return tuple(versions), f"the last {len(versions)} commits"


def _state_of(tree: DictTree, lowered: Lowered) -> dict[Place, tuple[str, tuple[object, ...]]]:
    """For each step that takes files: their fingerprint and listing ("" where they are missing)."""
    found: dict[Place, tuple[str, tuple[object, ...]]] = {}
    for vertex in lowered.graph.vertices:
        if not isinstance(vertex, Step):
            continue
        files = _context_files(lowered, vertex)
        if files is None:
            continue
        place = (vertex.origin.stage, vertex.origin.index)
        try:
            found[place] = (fingerprint(tree, files), tuple(listing(tree, files)))
        except SourceError:
            found[place] = ("", ())
    return found


def _changed(
    before: Mapping[Place, tuple[str, tuple[object, ...]]],
    now: Mapping[Place, tuple[str, tuple[object, ...]]],
) -> dict[Place, tuple[str, ...]]:
    found = {}
    for place, (digest, rows) in now.items():
        old, old_rows = before.get(place, ("", ()))
        if old != digest:
            changes = diff_listings(old_rows, rows)  # type: ignore[arg-type]
            paths = {change.path for change in changes} | {c.old for c in changes if c.old}
            found[place] = tuple(sorted(paths))
    return found


def _tree_of(root: str, commit: str, prefix: str, ignore_file: str) -> DictTree:
    """The context as it was in `commit`, from what Git knows of it."""
    text = _git_bytes(root, "ls-tree", "-r", "-z", "--full-tree", commit, "--", prefix or ".")
    files: dict[str, tuple[Node, bytes]] = {}
    for row in text.split(b"\0"):
        if not row:
            continue
        head, _, path = row.partition(b"\t")
        mode, kind, digest = head.split()
        name = os.fsdecode(path).removeprefix(prefix)
        if kind != b"blob":
            continue  # a submodule is another repository
        content = blake3(digest).digest()
        if mode == b"120000":
            node = Node(mode=0o120777, link=content)
        else:
            node = Node(mode=0o100000 | int(mode[-3:], 8), content=content)
        files[name] = (node, b"")
    if ignore_file in files:
        ignore = Ignore.parse(_git_bytes(root, "show", f"{commit}:{prefix}{ignore_file}"))
        files = {name: value for name, value in files.items() if not ignore.matches(name)}
    return DictTree(files)


def _git(root: str, *arguments: str) -> str:
    return os.fsdecode(_git_bytes(root, *arguments))


def _git_bytes(root: str, *arguments: str) -> bytes:
    try:
        done = subprocess.run(
            ["git", "-C", root, *arguments],
            capture_output=True,
            check=True,
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError as error:
        raise UsageError("advise compares commits, which needs the program git") from error
    except subprocess.CalledProcessError as error:
        reason = os.fsdecode(error.stderr).strip().splitlines()[-1:] or ["git failed"]
        raise UsageError(
            f"advise compares commits of the context, and git can't say what was in {root}: "
            f"{reason[0].removeprefix('fatal: ')}"
        ) from error
    return done.stdout


def recorded_seconds(texts: Sequence[tuple[str, float]]) -> dict[str, float]:
    """Seconds by text, the longest of equal texts."""
    found: dict[str, float] = {}
    for text, seconds in texts:
        found[text] = max(found.get(text, 0.0), seconds)
    return found
