"""The reason of a miss: a comparison of labelled material, field by field. Pure.

The explanation reads the same material that the key was made of, so the two can't disagree.
`CAUSES`, `KINDS` and `WHATS` are the closed lists of values in the JSON output.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from layercache._base.classes import evolve, frozen
from layercache.model.digests import CacheKey, Fingerprint
from layercache.model.framing import frame
from layercache.model.instruction import Field, Value
from layercache.model.keys import KeyMaterial
from layercache.model.operations import PARENT
from layercache.trees.listing import FileChange

__all__ = ["CAUSES", "KINDS", "WHATS", "Change", "Earlier", "Reason", "compare", "describe"]

CAUSES: Final = {
    "first-build": "no earlier build of this step is known here",
    "no-cache": "the cache was bypassed on request",
    "instruction": "the instruction itself changed",
    "environment": "a variable that the command sees changed",
    "files": "files that the step takes changed",
    "source": "the content of a source changed",
    "observed": "what the step was seen to look at changed",
    "parent": "an earlier step gave another result",
    "base": "the base image changed",
    "executor": "what runs the step changed",
    "scheme": "keys are made by another rule (strategy, version or salt)",
    "evicted": "the record of the same step is no longer in the cache",
    "audit": "a new run came out otherwise than what was to be reused by its trace",
    "lost": "the recorded layer was missing or damaged",
}
"""Every value of `reason.cause`, with its sentence."""

KINDS: Final = ("file", "variable", "field", "mount", "executor", "source", "step", "scheme")
"""Every `changes[].kind`."""

WHATS: Final = (
    "content", "mode", "owner", "added", "removed", "renamed", "link", "type", "xattr",
    "value", "order", "result", "metadata", "time", "size", "listing",
)  # fmt: skip
"""Every `changes[].what`."""


@frozen
class Change:
    """One difference: its kind, the thing that differs, and how.

    `old` and `new` are values for people, None if there is none or it is private.
    """

    kind: str
    path: str
    what: str
    old: str | None = None
    new: str | None = None

    def to_dict(self) -> dict[str, object]:
        found: dict[str, object] = {"kind": self.kind, "path": self.path, "what": self.what}
        if self.old is not None:
            found["old"] = self.old
        if self.new is not None:
            found["new"] = self.new
        return found


@frozen
class Reason:
    """The reason why a step was executed.

    `step` is (stage, index) of the earlier step whose changed result caused this;
    `compared_with` is the key of the earlier build of this step that the changes refer to.
    """

    cause: str
    changes: tuple[Change, ...] = ()
    step: tuple[int, int] | None = None
    compared_with: CacheKey | None = None

    def to_dict(self) -> dict[str, object]:
        step = None if self.step is None else {"stage": self.step[0], "index": self.step[1]}
        return {
            "cause": self.cause,
            "changes": [change.to_dict() for change in self.changes],
            "step": step,
        }


@frozen
class Earlier:
    """An earlier build of a step: its key, its material, and the listings behind fingerprints."""

    key: CacheKey
    material: KeyMaterial


def compare(
    earlier: Earlier,
    material: KeyMaterial,
    files: Mapping[Fingerprint, Sequence[FileChange]],
    *,
    base: bool = False,
) -> Reason:
    """The reason why `material` differs from that of `earlier`.

    `files` maps the present fingerprint of an input to the changes of its files since then, if a
    listing of both was kept. `base`: the parent is a base image rather than a step.
    """
    old = earlier.material
    found: list[tuple[str, Change]] = []
    if old.scheme != material.scheme:
        found.append(("scheme", Change("scheme", "scheme", "value", old.scheme, material.scheme)))
    if old.salt != material.salt:
        found.append(("scheme", Change("scheme", "salt", "value")))
    if old.name != material.name:
        found.append(("instruction", Change("field", "name", "value", old.name, material.name)))
    found += _compare_fields(old.fields, material.fields)
    found += [
        ("executor", evolve(change, kind="executor"))
        for _, change in _compare_fields(old.traits, material.traits)
    ]
    found += _compare_inputs(old, material, files, base)
    order = ("scheme", "instruction", "files", "source", "environment", "executor", "base")
    if not found and _parent_of(old) != _parent_of(material):
        found.append(("base" if base else "parent", Change("step", PARENT, "result")))
    if not found and old != material:
        found.append(("instruction", Change("field", "definition", "order")))
    causes = [cause for cause, _ in found]
    cause = next((c for c in order if c in causes), "parent" if "parent" in causes else "evicted")
    return Reason(
        cause=cause,
        changes=tuple(change for _, change in found),
        compared_with=earlier.key,
    )


def _compare_fields(old: Sequence[Field], new: Sequence[Field]) -> list[tuple[str, Change]]:
    before, after = _numbered(old), _numbered(new)
    found = []
    for label, number in dict.fromkeys([*before, *after]):
        was, now = before.get((label, number)), after.get((label, number))
        if was is not None and now is not None and frame(was.value) == frame(now.value):
            continue
        private = bool((was and was.private) or (now and now.private))
        what = "added" if was is None else "removed" if now is None else "value"
        cause, kind, path = _classify(label)
        if label == "env order":
            if set(_words(was)) != set(_words(now)):
                continue  # each added or removed variable is a separate change
            what = "order"
        change = Change(
            kind,
            path,
            what,
            None if private or was is None else show(was.value),
            None if private or now is None else show(now.value),
        )
        found.append((cause, change))
    return found


def _numbered(fields: Sequence[Field]) -> dict[tuple[str, int], Field]:
    """Fields by label and, for equal labels, by number."""
    found: dict[tuple[str, int], Field] = {}
    for field in fields:
        number = 0
        while (field.label, number) in found:
            number += 1
        found[field.label, number] = field
    return found


def _words(field: Field | None) -> tuple[object, ...]:
    value = field.value if field is not None else ()
    return value if isinstance(value, tuple) else ()


def _classify(label: str) -> tuple[str, str, str]:
    if label.startswith("env "):
        return "environment", "variable", label[4:]
    if label == "environment":
        return "environment", "field", label
    if label.startswith("mount "):
        return "instruction", "mount", label[6:]
    return "instruction", "field", label


def _parent_of(material: KeyMaterial) -> object:
    return next((entry for entry in material.inputs if entry.role == PARENT), None)


def _compare_inputs(
    old: KeyMaterial,
    new: KeyMaterial,
    files: Mapping[Fingerprint, Sequence[FileChange]],
    base: bool,
) -> list[tuple[str, Change]]:
    before = {entry.role: entry for entry in old.inputs}
    after = {entry.role: entry for entry in new.inputs}
    found: list[tuple[str, Change]] = []
    if list(before) != list(after) and set(before) == set(after):
        found.append(("instruction", Change("source", "inputs", "order")))
    for role in dict.fromkeys([*before, *after]):
        was, now = before.get(role), after.get(role)
        if was is None or now is None:
            what = "added" if was is None else "removed"
            found.append(("instruction", Change("source", role, what)))
            continue
        if role == PARENT:
            if was.selector == now.selector and was.fingerprint != now.fingerprint:
                found.append(("base" if base else "parent", Change("step", role, "result")))
            continue  # different selectors (the whole parent, or observations) can't be compared
        if was.selector != now.selector:
            found += [
                ("instruction", evolve(change, path=f"{role} {change.path}"))
                for _, change in _compare_fields(was.selector, now.selector)
            ]
        if was.fingerprint == now.fingerprint:
            continue
        if changes := files.get(now.fingerprint):
            found += [("files", Change("file", c.path, c.what, c.old)) for c in changes]
        else:
            found.append(("source", Change("source", role, "content")))
    return found


def show(value: Value) -> str:
    """A short form of a value, for people."""
    if isinstance(value, tuple):
        text = ", ".join(show(item) for item in value)
    elif isinstance(value, bytes):
        text = value.decode("utf-8", "backslashreplace")
    else:
        text = "none" if value is None else str(value)
    return text if len(text) <= 200 else text[:199] + "…"


def describe(reason: Reason, names: Mapping[tuple[int, int], str]) -> str:
    """One line for people; `names` holds the text of steps by (stage, index)."""
    own = [change for change in reason.changes if change.kind != "step"]
    named = {"files", "environment", "instruction", "executor", "source", "observed", "audit"}
    if reason.cause in named and own:
        shown = [_phrase(change) for change in own[:3]]
        more = f" and {len(own) - 3} more" if len(own) > 3 else ""
        return "; ".join(shown) + more
    if reason.cause == "parent" and reason.step is not None:
        return f"follows {names.get(reason.step, 'an earlier step')!r}"
    return CAUSES[reason.cause]


def _phrase(change: Change) -> str:
    name = change.path
    match change.kind, change.what:
        case "file", "renamed":
            return f"{change.old or '?'} renamed to {name}"
        case "file", "added" | "removed":
            return f"{name} {change.what}"
        case "file", _:
            return f"{change.what} of {name} changed"
        case "variable", "added" | "removed":
            return f"variable {name} {change.what}"
        case "variable", "order":
            return "the order of variables changed"
        case _, "order":
            return f"the order of the {name} changed"
        case "executor", _:
            return f"executor: {name} changed"
        case "source", what:
            return f"{name}: {what}"
    values = f" from {change.old!r} to {change.new!r}" if change.old and change.new else ""
    return f"{change.kind} {name} changed{values}"
