"""`layercache advise`: the savings of another order, from records and from Git history."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Sequence

import attrs

from layercache.advice.advise import Advice
from layercache.advice.advise import advise as proposals
from layercache.advice.versions import plain_graph, recorded_seconds, steps_of, versions_of
from layercache.builds.history import trail_id
from layercache.builds.request import project_of
from layercache.cli.request import prepare, print_json
from layercache.dockerfile.recipe import Dockerfile, beneath
from layercache.errors import UsageError
from layercache.inputs.git_history import past_trees
from layercache.reports.visible import visible
from layercache.trees.patterns import IGNORE_FILE, Ignore

__all__ = ["advise"]


def advise(options: Namespace) -> int:
    """Print proposals for the Dockerfile, ranked by the seconds they would have saved."""
    builder, request = prepare(options)
    recipe = request.recipe
    if not isinstance(recipe, Dockerfile) or recipe.path is None:
        raise UsageError("advise needs a Dockerfile on disk: name it with -f")
    trail = builder.store.trails.get(trail_id(project_of(request)))
    recorded = recorded_seconds(
        [(s.text, s.record.seconds) for s in trail.steps if s.record is not None] if trail else []
    )
    args = {name: value for name, value in request.args.items() if value is not None}
    lowered = plain_graph(recipe, request.target, args)
    steps = steps_of(lowered, recipe, recorded)
    if not any(step.seconds for step in steps):
        raise UsageError(
            "no build of this project is recorded in this cache, so no step's cost is known: "
            "build once with the same --cache, then ask again"
        )
    context = os.fspath(options.context)
    count = options.history if options.history is not None else 20
    ignore_path = recipe.path + IGNORE_FILE  # the only one in use if it exists
    if not os.path.exists(ignore_path):
        ignore_path = os.path.join(context, IGNORE_FILE)
    ignore_file = _read(context, os.path.abspath(ignore_path))
    ignore_name = os.path.relpath(ignore_path, context)
    versions = versions_of(past_trees(context, count, ignore_name), lowered)
    seen = f"the last {len(versions)} commits"
    found = proposals(
        steps,
        versions,
        dockerfile=_read(context, recipe.path),
        ignore_file=ignore_file,
        files=_files(context, Ignore.parse(ignore_file)),
        read=lambda path: _read_inside(context, path),
        name=os.path.basename(recipe.path),
        ignore_name=ignore_name,
    )
    if options.json:
        print_json({"schema": 1, "versions": len(versions), "advice": _plain(found)})
    else:
        print(visible(_shown(found, seen)))
    return 0


def _files(context: str, ignore: Ignore) -> list[str]:
    """The paths of the context that a COPY can take."""
    found: list[str] = []
    for directory, names, files in os.walk(context):
        names[:] = [name for name in names if name not in {".git", "node_modules"}]
        relative = os.path.relpath(directory, context)
        paths = [os.path.normpath(os.path.join(relative, name)) for name in files]
        found += [path for path in paths if not ignore.matches(path)]
    return found


def _read(context: str, path: str) -> str:
    """The text of a file; "" if it is missing or outside the context."""
    from layercache._os.small_files import read_beneath, read_file

    inside = beneath(context, os.path.join(context, path))
    try:
        found = read_file(path) if inside is None else read_beneath(context, inside)
    except OSError:
        return ""
    return found.decode("utf-8", "surrogateescape")


def _read_inside(context: str, path: str) -> str:
    """The text of a file that the project names, but never one outside the context."""
    if beneath(context, os.path.join(context, path)) is None:
        return ""
    return _read(context, path)


def _plain(found: Sequence[Advice]) -> list[dict[str, object]]:
    return [attrs.asdict(advice) for advice in found]


def _shown(found: Sequence[Advice], seen: str) -> str:
    if not found:
        return f"over {seen} no other order would have saved anything"
    lines = [f"over {seen}:"]
    for number, advice in enumerate(found, 1):
        lines.append(f"{number}. {advice.title}: {advice.saved_seconds:.1f} s saved")
        lines.append(f"   {advice.evidence}")
        if advice.doubt:
            lines.append(f"   doubtful: {advice.doubt}")
        lines += [f"   {line}" for line in advice.diff.splitlines()]
    return "\n".join(lines)
