"""The reason of every miss of a build: found from its trail, compared by `explain`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from layercache._base.classes import evolve
from layercache.dockerfile.lowering.options import Lowered, Row
from layercache.engine.driver import WalkResult
from layercache.errors import CacheError, SourceError
from layercache.inputs.inputs import Inputs
from layercache.model.descriptors import SCRATCH
from layercache.model.digests import Fingerprint
from layercache.model.graph import Base, Step
from layercache.model.instruction import Field
from layercache.model.keys import InputMaterial, KeyMaterial, KeyStrategy
from layercache.model.operations import PARENT
from layercache.model.private import redact
from layercache.model.records import Record
from layercache.model.selectors import EVERYTHING, Files
from layercache.reports.reasons import Change, Earlier, Reason, compare
from layercache.solver.narrowing import weak_key
from layercache.solver.protocol import Decision
from layercache.store.trails import Trail, TrailStep
from layercache.trees.listing import FileChange, decode_listing, diff_listings, listing

if TYPE_CHECKING:
    from layercache.builds.baseline import Against
    from layercache.store.parts import Cache

__all__ = ["Reasons", "place_of"]


class Reasons:
    """Compares the steps of one build with those of an earlier one.

    `trail` is the project's last build; `against`, where given, the build that was named
    instead, with the store that has its listings.
    """

    def __init__(
        self,
        store: Cache,
        inputs: Inputs,
        keys: KeyStrategy,
        trail: Trail | None,
        against: Against | None,
    ) -> None:
        self._store = store if against is None else against.store
        self._inputs = inputs
        self._keys = keys
        self._trail = trail if against is None else against.trail
        self._against = against

    def of(
        self, lowered: Lowered, decisions: Mapping[int, Decision], run: WalkResult
    ) -> dict[int, Reason]:
        """The reason for each vertex that was executed or would be.

        Compared with a named build: for each that has another key there, reused or not.
        """
        rows = {row.vertex: row for row in lowered.rows if row.vertex is not None}
        found: dict[int, Reason] = {}
        for vertex, decision in decisions.items():
            row = rows.get(vertex)
            if row is None:
                continue
            if self._against is not None:
                if decision.outcome == "skip" or self._as_against(row, decision):
                    continue
            elif decision.outcome not in {"miss", "would-run"}:
                continue
            reason = self._reason(lowered, decisions, decision, row, run, found)
            if self._against is not None and decision.key is None and reason.cause == "parent":
                continue  # nothing is known to differ
            found[vertex] = reason
        return found

    def _reason(
        self,
        lowered: Lowered,
        decisions: Mapping[int, Decision],
        decision: Decision,
        row: Row,
        run: WalkResult,
        known: Mapping[int, Reason],
    ) -> Reason:
        step = lowered.graph.vertices[decision.vertex]
        assert isinstance(step, Step)
        if step.bypass:
            return Reason("no-cache")
        if decision.key in run.lost:
            return Reason("lost", compared_with=decision.key)
        if decision.key is not None and decision.key in run.audits:
            paths = run.audits[decision.key]
            return Reason("audit", tuple(Change("file", path, "content") for path in paths))
        earlier = self.earlier(row)
        if earlier is None or earlier.record is None:
            return Reason("first-build")
        material = decision.material or self._expected(step, decision, earlier.record)
        if earlier.key == decision.key:
            return Reason("evicted", compared_with=earlier.key)
        parent = next((e.vertex for e in step.inputs if e.role == PARENT), None)
        base = parent is not None and isinstance(lowered.graph.vertices[parent], Base)
        reason = compare(
            Earlier(earlier.key, redact(earlier.key, _widened(earlier.record))),
            redact(earlier.key, material),
            self._file_changes(lowered, decisions, step, material, earlier.record),
            base=base,
        )
        if decision.material is None and reason.cause == "evicted":
            result = Change("step", PARENT, "result")  # only the steps that it waits for can differ
            reason = evolve(reason, cause="parent", changes=(result,))
        if any(change.kind == "step" for change in reason.changes):
            reason = evolve(reason, step=self._culprit(lowered, decisions, parent, known))
            seen = self._seen(decisions, decision, parent, lowered, run)
            if seen is not None and reason.cause in {"parent", "base"}:
                reason = evolve(reason, cause="observed", changes=(seen, *reason.changes))
        return reason

    def _expected(self, step: Step, decision: Decision, earlier: Record) -> KeyMaterial:
        """The material that a waiting step will have if the steps before it give the same results
        again.
        """
        old = {entry.role: entry.fingerprint for entry in _widened(earlier).inputs}
        known = decision.inputs or (None,) * len(step.inputs)
        inputs = [
            fingerprint or old.get(edge.role) or Fingerprint("")
            for edge, fingerprint in zip(step.inputs, known, strict=True)
        ]
        return self._keys.material(step, inputs)

    def _seen(
        self,
        decisions: Mapping[int, Decision],
        decision: Decision,
        parent: int | None,
        lowered: Lowered,
        run: WalkResult,
    ) -> Change | None:
        """The first observation of the step that has changed since."""
        if decision.material is None or not decision.tried or parent is None:
            return None
        known = self._inputs.known
        before = run.known.get(weak_key(decision.material))
        try:
            state = self._subject(lowered, decisions, parent)
            for candidate in before.candidates if before is not None else ():
                values = self._inputs.values(state, known.observations(candidate.selector))
                found = values.first_difference(known.read(candidate.values_at))
                if found is not None:
                    kind = "file" if found.path.startswith("/") else "field"
                    return Change(kind, found.path, found.what)
        except (CacheError, SourceError):
            pass  # the reason then names the earlier step only
        return None

    def _culprit(
        self,
        lowered: Lowered,
        decisions: Mapping[int, Decision],
        vertex: int | None,
        known: Mapping[int, Reason],
    ) -> tuple[int, int] | None:
        """The earlier step whose own change caused this miss."""
        while vertex is not None:
            step = lowered.graph.vertices[vertex]
            if not isinstance(step, Step):
                return None
            reason = known.get(vertex)
            if reason is not None:
                follows = reason.cause == "parent" and reason.step is not None
                return reason.step if follows else place_of(lowered, vertex)
            vertex = next((e.vertex for e in step.inputs if e.role == PARENT), None)
        return None

    def _file_changes(
        self,
        lowered: Lowered,
        decisions: Mapping[int, Decision],
        step: Step,
        material: KeyMaterial,
        earlier: Record,
    ) -> dict[Fingerprint, Sequence[FileChange]]:
        found: dict[Fingerprint, Sequence[FileChange]] = {}
        old = {entry.role: entry.fingerprint for entry in earlier.material.inputs}
        stored = dict(earlier.manifests)
        for edge, entry in zip(step.inputs, material.inputs, strict=True):
            before = old.get(edge.role)
            if not isinstance(edge.selector, Files) or before in (None, entry.fingerprint):
                continue
            digest = stored.get(Fingerprint(str(before)))
            if digest is None:
                continue
            try:
                rows = decode_listing(self._store.blobs.read(digest))
                tree = self._inputs.tree(self._subject(lowered, decisions, edge.vertex))
                changes = diff_listings(rows, listing(tree, edge.selector))
            except (CacheError, SourceError):
                continue  # the reason then says "source" without the files
            found[entry.fingerprint] = changes
        return found

    def _subject(self, lowered: Lowered, decisions: Mapping[int, Decision], number: int) -> Any:
        vertex = lowered.graph.vertices[number]
        if isinstance(vertex, Base):
            return vertex.state
        if isinstance(vertex, Step):
            return decisions[number].state or SCRATCH
        return vertex

    def _as_against(self, row: Row, decision: Decision) -> bool:
        """Whether the named build had the same key for this step."""
        earlier = self.earlier(row)
        return earlier is not None and earlier.key == decision.key

    def earlier(self, row: Row) -> TrailStep | None:
        """The step of the earlier build that a step is compared with.

        The same text in the same stage first, nearest by position; else the same operation at
        the same place.
        """
        if self._trail is None:
            return None
        origin = row.origin
        same_stage = [s for s in self._trail.steps if s.stage == origin.stage and s.record]
        same = [s for s in same_stage if s.text == origin.text]
        if not same:
            same = [s for s in self._trail.steps if s.record and s.text == origin.text]
        if same:
            return min(same, key=lambda s: abs(s.index - origin.index))
        here = [s for s in same_stage if s.index == origin.index and s.op == origin.op]
        return here[0] if here else None


def _widened(record: Record) -> KeyMaterial:
    """The material of a record as if the whole parent had counted."""
    everything = tuple(EVERYTHING.definition())
    inputs = tuple(
        InputMaterial(PARENT, everything, Fingerprint(record.parent))
        if entry.role == PARENT and Field("selector", "observed") in entry.selector
        else entry
        for entry in record.material.inputs
    )
    return evolve(record.material, inputs=inputs)


def place_of(lowered: Lowered, vertex: int) -> tuple[int, int]:
    """Stage and index of a step."""
    step = lowered.graph.vertices[vertex]
    return (step.origin.stage, step.origin.index) if isinstance(step, Step) else (-1, -1)
