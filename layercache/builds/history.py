"""Data that a build leaves for later ones: a trail for each project, and counts of all builds."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from layercache.dockerfile.lowering.options import Lowered
from layercache.engine.driver import WalkResult
from layercache.errors import CacheError
from layercache.model.descriptors import State
from layercache.model.graph import Origin
from layercache.model.records import Record
from layercache.reports.report import Report
from layercache.reports.totals import Totals
from layercache.store.trails import Trail, TrailStep

if TYPE_CHECKING:
    from layercache.store.parts import Cache

__all__ = ["BuildHistory", "tag_project", "trail_id"]


class BuildHistory:
    """The history of builds of `project` in `store`.

    `compared` where this build is compared with another than the last: its trail is not kept.
    """

    def __init__(self, store: Cache, project: str, *, compared: bool = False) -> None:
        self._store = store
        self._name = trail_id(project)
        self._compared = compared

    @functools.cached_property
    def trail(self) -> Trail | None:
        """The steps of the last build of this project; None if none is recorded or it can't be
        read.
        """
        try:
            return self._store.trails.get(self._name)
        except CacheError:
            return None

    def keep_trail(self, lowered: Lowered, run: WalkResult, names: Sequence[str] = ()) -> None:
        """Remember this build for the explanations of the next; an unchanged trail is the last one.

        Under `names`, too, so that a later build can be compared with an image by its tag.
        """
        decisions = {decision.vertex: decision for decision in run.decisions}
        last = self.trail
        old = {(s.stage, s.index): s for s in last.steps} if last else {}
        found: list[TrailStep | tuple[Origin, Record, State]] = []
        same = last is not None and last.labels == lowered.config.labels
        for row in lowered.rows:
            if row.vertex is None or row.origin.onbuild is not None:
                continue
            origin, decision = row.origin, decisions[row.vertex]
            record, state = decision.record, decision.state
            kept = old.get((origin.stage, origin.index))
            if record is None or state is None:
                if kept is not None:
                    found.append(kept)
                continue
            found.append((origin, record, state))
            same = same and kept is not None and _says(kept, origin, record, state)
        if same and not names and len(found) == len(old):
            if not self._compared:
                self._store.trails.renew(self._name)
            return
        if self._compared:
            return
        steps = tuple([s if isinstance(s, TrailStep) else _trail_step(*s) for s in found])
        labels = lowered.config.labels
        try:
            self._store.trails.put(Trail(self._name, steps, labels=labels))
            for name in names:
                target = trail_id(tag_project(name))
                self._store.trails.put(Trail(target, steps, labels=labels))
        except CacheError:
            return  # only the explanations of the next build suffer

    def keep_totals(self, report: Report) -> None:
        """Add this build to the counts of the cache's life; a lost race loses a count."""
        try:
            kept = self._store.derived.get("stats", "life")
            before = Totals.decode(kept) if kept is not None else Totals()
        except CacheError:
            before = Totals()
        try:
            self._store.derived.put("stats", "life", before.plus(Totals.of(report)).encode())
        except CacheError:
            return


def _says(step: TrailStep, origin: Origin, record: Record, state: State) -> bool:
    """Whether a step of a trail equals the outcome of this build."""
    return (
        step.key == record.key
        and step.chain_id == state.chain_id
        and step.text == origin.text
        and step.op == origin.op
    )


def _trail_step(origin: Origin, record: Record, state: State) -> TrailStep:
    return TrailStep(
        stage=origin.stage,
        index=origin.index,
        op=origin.op,
        text=origin.text,
        key=record.key,
        chain_id=state.chain_id,
        record=record,
    )


def tag_project(tag: str) -> str:
    """The project name under which the trail of a tagged image is kept."""
    from layercache.oci.references import Reference

    return f"tag\0{Reference.parse(tag).tagged()}"


def trail_id(project: str) -> str:
    """The name of a project's trail: a digest, so that paths stay private."""
    from blake3 import blake3

    context = "layercache 2026-11 trail of a project"
    return blake3(
        project.encode("utf-8", "surrogateescape"), derive_key_context=context
    ).hexdigest()
