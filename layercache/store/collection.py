"""Inspection of a store: contents, space, damage, and collection.

Removal is safe beside running builds and after a crash at any step: records are removed before the
blobs that they refer to, so no remaining object refers to a removed one; objects that were written
or used within the grace period stay. Ages compare the backend's own stamps, never a clock. It is
one module, as looking, checking and removing go by one picture of a store.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Final

from layercache._base.classes import evolve, frozen
from layercache.errors import CacheError, CorruptObject, NotFound
from layercache.model.digests import CacheKey, Digest, TreeDigest, is_tree_digest
from layercache.model.records import Record
from layercache.store.backend import Cleans, Holds, InDirectory, ObjectInfo, read_bounded
from layercache.store.codec import check_record, decode_record
from layercache.store.layer_blobs import ARCHIVES
from layercache.store.marker import is_cache
from layercache.store.parts import Cache
from layercache.store.retention import CacheEntry, Pinned, Policy, Situation, Verdict, judge
from layercache.store.store import GRACE, Store
from layercache.store.trails import definition_of

__all__ = ["GRACE", "Collected", "Damage", "Usage", "collect", "entries_of", "usage", "verify"]

_SUSPICIOUS: Final = 366 * 86_400.0
"""A pause longer than this between the last use and now is taken for a clock that jumped."""

_PROBE: Final = "probe/clock"

_HINTS: Final = frozenset(
    {
        "refs",
        "trails",
        "beginnings",
        "facts",
        "accounts",
        "selectors",
        "untraced",
        "results",
        "layer-size",
    }
)
"""Kinds of small objects that only help to find or to spare work: they go with everything."""


@frozen(kw_only=True)
class Usage:
    """Bytes and objects by kind: records, blobs, references, trails and so on."""

    objects: Mapping[str, int]
    bytes: Mapping[str, int]

    @property
    def total(self) -> int:
        return sum(self.bytes.values())


@frozen
class Damage:
    """One damaged object, and whether it was removed."""

    name: str
    message: str
    repaired: bool = False


@frozen(kw_only=True)
class Collected:
    """The result of a collection or a dry run: a verdict for each record, the objects removed."""

    verdicts: tuple[Verdict, ...]
    removed: tuple[str, ...]
    freed: int
    dry_run: bool


@frozen
class _Build:
    """How recent a build is, and the labels of its image, where they are known."""

    number: int
    labels: tuple[tuple[str, str], ...] | None


@frozen
class _Contents:
    """One look at everything in a store."""

    infos: tuple[ObjectInfo, ...]
    records: Mapping[str, Record]
    damaged: Mapping[str, str]
    pins: Mapping[Digest, tuple[str, ...]]
    builds: Mapping[str, tuple[_Build, ...]]


def _look(store: Store) -> _Contents:
    infos = _infos(store, "") if is_cache(store.objects) else ()
    records: dict[str, Record] = {}
    damaged: dict[str, str] = {}
    for info in infos:
        if _kind(store, info.name) != "ac":
            continue
        try:
            record = _record(store, info.name)
            check_record(record)
            records[info.name] = record
        except NotFound:
            continue  # another collection was faster
        except CorruptObject as error:
            damaged[info.name] = str(error)
    return _Contents(infos, records, damaged, _pins(store), _builds(store, infos))


def _infos(store: Store, kind: str) -> tuple[ObjectInfo, ...]:
    """All objects whose names begin with `kind`, and with the blobs the open layers."""
    found = list(store.objects.medium.list(store.objects.prefix + kind))
    if "blobs/".startswith(kind):
        found += store.blobs.open_infos()
    return tuple(found)


def _delete(store: Store, name: str) -> None:
    """Remove an object; of an open layer only the claim that it is one."""
    if not store.blobs.delete_open(name):
        store.objects.medium.delete(name)


def _record(store: Store, name: str) -> Record:
    """The record of that name. Raises `CacheError`: one that can't be read is not damaged, and
    what it refers to is not free."""
    try:
        with store.objects.medium.read(name) as content:
            data = read_bounded(content, name)
    except OSError as error:
        raise CacheError(f"can't read {name}: {error}") from error
    return decode_record(CacheKey(name.rpartition("/")[2]), data, store.objects.verifier)


def _pins(store: Store) -> dict[Digest, tuple[str, ...]]:
    """Layer → the tags that hold it."""
    from layercache.store.tags import list_tags

    found: dict[Digest, list[str]] = {}
    for tag in list_tags(store):
        for layer in tag.layers:
            found.setdefault(layer.digest, []).append(tag.name)
    return {digest: tuple(names) for digest, names in found.items()}


def _builds(store: Store, infos: Iterable[ObjectInfo]) -> dict[str, tuple[_Build, ...]]:
    """Key or layer → the builds whose trail names it.

    By layer, since a step may have further records of it, that name less of the parent.
    """
    prefix = f"{store.objects.prefix}trails/"
    trails = sorted(
        (info for info in infos if info.name.startswith(prefix)), key=lambda i: -i.stamp
    )
    found: dict[str, dict[_Build, None]] = {}
    for number, info in enumerate(trails):
        trail = store.trails.get(info.name.removeprefix(prefix))
        if trail is None:
            continue
        # What lies under the digest of its steps is for every machine, no build of its own.
        rows = ((s.stage, s.index, s.op, s.text) for s in trail.steps)
        shared = trail.target == definition_of(rows)
        build = _Build(number, None if shared else trail.labels)
        for step in trail.steps:
            found.setdefault(step.key, {})[build] = None
            if step.record is not None and step.record.layer is not None:
                found.setdefault(step.record.layer.id, {})[build] = None
    return {name: tuple(builds) for name, builds in found.items()}


def _blobs(store: Store, record: Record) -> tuple[Digest, ...]:
    """Every blob that a record refers to; of an open layer also the archive that was made since."""
    layer: tuple[Digest, ...] = ()
    if record.layer is not None:
        layer = (record.layer.descriptor.digest,)
        if record.layer.is_open:
            archive = store.blobs.named_archive(record.layer.tree)
            layer += (archive,) if archive is not None else ()
    log = (record.log,) if record.log is not None else ()
    return (*layer, *log, *(digest for _, digest in record.manifests))


def entries_of(cache: Cache) -> tuple[CacheEntry, ...]:
    """Every record of the store, in the form that retention uses, the most valuable first."""
    store = cache.local
    contents = _look(store)
    now = _now(store, contents.infos, write=False)
    entries = _entries(store, contents)
    return tuple(sorted(entries, key=lambda entry: -entry.value(now)))


def _entries(store: Store, contents: _Contents) -> list[CacheEntry]:
    stamps = {info.name: info.stamp for info in contents.infos}
    sizes = {info.name: info.size for info in contents.infos}
    found = []
    for name, record in contents.records.items():
        digests = dict.fromkeys(_blobs(store, record))
        names = {digest: store.blobs.name(digest) for digest in digests}
        layer = record.layer.id if record.layer is not None else ""
        builds = dict.fromkeys(
            [*contents.builds.get(record.key, ()), *contents.builds.get(layer, ())]
        )
        pins = dict.fromkeys(name for d in digests for name in contents.pins.get(d, ()))
        labels = [build.labels for build in builds if build.labels is not None]
        used = max([stamps[name], *(stamps.get(names[d], 0.0) for d in digests)])
        found.append(
            CacheEntry(
                key=record.key,
                text=_text(record),
                used=used,
                seconds=record.seconds,
                blobs=tuple((d, sizes.get(names[d], 0)) for d in digests),
                pins=tuple(pins),
                builds=tuple(sorted(build.number for build in builds)),
                labels=tuple(dict.fromkeys(labels)),
            )
        )
    return found


def _text(record: Record) -> str:
    """A short text for a record: its instruction and its first argument."""
    for field in record.material.fields:
        if field.label in {"command", "path", "destination"} and not field.private:
            value = field.value
            shown = " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
            return f"{record.material.name} {shown}"
    return record.material.name


def _now(store: Store, infos: Sequence[ObjectInfo], *, write: bool) -> float:
    """The time by the backend's own clock: the stamp of something written just now.

    Where nothing may be written this machine's clock has to do.
    """
    newest = max((info.stamp for info in infos), default=0.0)
    if not write:
        here = time.time()
        return here if 0 <= here - newest <= _SUSPICIOUS else newest
    name = store.objects.prefix + _PROBE
    try:
        store.objects.medium.write(name, io.BytesIO(b"now"))
        stamp = next((i.stamp for i in store.objects.medium.list(name) if i.name == name), newest)
    except CacheError:
        return newest  # a full medium: ages are then counted from the last write
    store.objects.medium.delete(name)
    return newest if stamp - newest > _SUSPICIOUS else stamp


def collect(
    cache: Cache,
    policies: Sequence[Policy],
    *,
    dry_run: bool = False,
    grace: float = GRACE,
    pinned: Pinned | None = None,
    everything: bool = False,
) -> Collected:
    """Remove the records that the policies release, and all unreferenced objects.

    `everything` releases all records and tags (the grace period still protects objects in recent
    use unless `grace` is 0). With `dry_run` nothing changes. Raises `UsageError` if the place is
    not a cache, `CacheError` if the backend fails; objects removed by then were removed in an order
    that leaves no dangling reference.
    """
    store = cache.local
    if not is_cache(store.objects):
        return Collected(verdicts=(), removed=(), freed=0, dry_run=dry_run)
    contents = _look(store)
    now = _now(store, contents.infos, write=not dry_run)
    entries = _entries(store, contents)
    referred = {digest for record in contents.records.values() for digest in _blobs(store, record)}
    referred |= set(contents.pins)
    sizes = {info.name: info.size for info in contents.infos}
    names = {store.blobs.name(digest) for digest in referred}
    other = sum(size for name, size in sizes.items() if name not in names)
    situation = Situation(now=now, free=_free(store), other=other)
    if everything:
        verdicts = tuple(
            Verdict(
                e, now - e.used < grace, "in use lately" if now - e.used < grace else "on request"
            )
            for e in entries
        )
    else:
        verdicts = judge(entries, policies, situation, grace=grace, pinned=pinned)
    kept = {verdict.entry.key for verdict in verdicts if verdict.keep}
    doomed = [n for n, record in contents.records.items() if record.key not in kept]
    doomed += [n for n in contents.damaged if now - _stamp(contents, n) >= grace]
    stay = {
        digest
        for record in contents.records.values()
        if record.key in kept
        for digest in _blobs(store, record)
    }
    if everything:
        doomed += [i.name for i in contents.infos if _kind(store, i.name) in _HINTS]
    else:
        stay |= set(contents.pins)
    removed = list(doomed)
    removed += _unreferred(store, contents, stay, now, grace)
    debris = 0
    if not dry_run:
        removed = _remove(store, doomed, removed[len(doomed) :], contents)
    if isinstance(store.objects.medium, Cleans):
        debris = store.objects.medium.clean(dry_run)
    freed = sum(sizes.get(name, 0) for name in removed) + debris
    return Collected(verdicts=verdicts, removed=tuple(removed), freed=freed, dry_run=dry_run)


def _kind(store: Store, name: str) -> str:
    return name.removeprefix(store.objects.prefix).partition("/")[0]


def _stamp(contents: _Contents, name: str) -> float:
    return next((info.stamp for info in contents.infos if info.name == name), 0.0)


def _unreferred(
    store: Store, contents: _Contents, stay: set[Digest], now: float, grace: float
) -> list[str]:
    """Blobs that nothing refers to, and what was derived from layers that are gone."""
    kept = {store.blobs.name(digest) for digest in stay}
    layers = {digest.replace(":", "-") for digest in stay}
    found = []
    for info in contents.infos:
        if now - info.stamp < grace:
            continue
        kind = _kind(store, info.name)
        if (kind == "blobs" and info.name not in kept) or (
            kind in {"index", ARCHIVES} and info.name.rpartition("/")[2] not in layers
        ):
            found.append(info.name)
    return found


def _remove(
    store: Store, records: Sequence[str], rest: Sequence[str], contents: _Contents
) -> list[str]:
    """Remove what no running build holds; the names of what went."""
    layers = {name: _layer_name(store, contents.records.get(name)) for name in records}
    wanted = {name for name in [*layers.values(), *rest] if name}
    removed = []
    with _seized(store, sorted(wanted)) as free:
        held = wanted - set(free)
        seen = {info.name: info.stamp for info in contents.infos}
        # A build that came and went since all was looked at has written, or relied on, what it
        # acknowledged: its stamp is then new.
        renewed: set[str] = set()
        for kind in sorted({_kind(store, name) for name in records}):
            renewed |= _renewed(store, f"{kind}/", seen)
        spared = [name for name in records if layers[name] in held]
        for name in records:
            if layers[name] not in held and name not in renewed:
                _delete(store, name)
                removed.append(name)
        again = _renewed(store, "blobs/", seen)
        referred = held | {store.blobs.name(digest) for digest in _pins(store)}
        for name in spared:
            referred |= {store.blobs.name(d) for d in _blobs(store, contents.records[name])}
        for name in _renewed(store, "ac/", seen):
            referred |= _blobs_of(store, name)
        for name in rest:
            if name not in again and name not in referred:
                _delete(store, name)
                removed.append(name)
    store.forget()
    return removed


def _renewed(store: Store, kind: str, seen: Mapping[str, float]) -> set[str]:
    """What has another stamp now than when it was `seen`, or was not there."""
    infos = _infos(store, kind)
    return {info.name for info in infos if seen.get(info.name) != info.stamp}


def _layer_name(store: Store, record: Record | None) -> str:
    if record is None or record.layer is None:
        return ""
    return store.blobs.name(record.layer.descriptor.digest)


def _seized(store: Store, names: Sequence[str]) -> AbstractContextManager[Sequence[str]]:
    """Those of `names` that no running build holds, kept so meanwhile."""
    if isinstance(store.objects.medium, Holds):
        return store.objects.medium.seize(names)
    return nullcontext(names)


def _blobs_of(store: Store, name: str) -> set[str]:
    """The blobs of a record that was written while a collection ran."""
    try:
        record = _record(store, name)
    except (NotFound, CorruptObject):
        return set()
    return {store.blobs.name(digest) for digest in _blobs(store, record)}


def _free(store: Store) -> int | None:
    """Bytes free on the medium of a local store."""
    backend = store.backend
    directory = backend.directory if isinstance(backend, InDirectory) else None
    if directory is None or not hasattr(os, "statvfs"):
        return None
    try:
        status = os.statvfs(directory)
    except OSError:
        return None
    return status.f_bavail * status.f_frsize


def usage(cache: Cache) -> Usage:
    """The space used, by kind of object."""
    store = cache.local
    objects: dict[str, int] = {}
    size: dict[str, int] = {}
    names = {"ac": "records", "refs": "references"}
    apart = store.blobs.open_places()
    for info in store.objects.medium.list(store.objects.prefix) if is_cache(store.objects) else ():
        if apart and info.name.startswith(apart):
            continue  # counted as an open layer
        kind = _kind(store, info.name)
        kind = names.get(kind, kind)
        objects[kind] = objects.get(kind, 0) + 1
        size[kind] = size.get(kind, 0) + info.size
    for info in store.blobs.open_infos():
        objects["open layers"] = objects.get("open layers", 0) + 1
        size["open layers"] = size.get("open layers", 0) + info.size
    return Usage(objects=dict(sorted(objects.items())), bytes=dict(sorted(size.items())))


def verify(
    cache: Cache, *, repair: bool = False, progress: Callable[[int], None] | None = None
) -> tuple[Damage, ...]:
    """Read and check everything: records, blobs by digest, and that records and tags find their
    blobs.

    With `repair`, damaged objects are removed, so that the next build makes them again. `progress`
    is called with the bytes read so far.
    """
    store = cache.local
    contents = _look(store)
    found = [Damage(name, message) for name, message in contents.damaged.items()]
    there = {info.name for info in contents.infos}
    bad: set[str] = set()
    for name, error in _unreadable(store, contents.infos, progress):
        if isinstance(error, NotFound):
            there.discard(name)
        else:
            bad.add(name)
            found.append(Damage(name, str(error)))
    for name, record in contents.records.items():
        for digest in _blobs(store, record):
            blob = store.blobs.name(digest)
            if blob not in there and _is_archived(store, record, digest, there):
                continue
            if blob not in there or blob in bad:
                what = "damaged" if blob in bad else "not there"
                found.append(Damage(name, f"refers to {digest}, which is {what}"))
                break
    lost: dict[str, str] = {}
    for digest, tags in sorted(contents.pins.items()):
        blob = store.blobs.name(digest)
        if blob not in there or blob in bad:
            what = "damaged" if blob in bad else "not there"
            for tag in tags:
                lost.setdefault(tag, f"the image {tag} refers to {digest}, which is {what}")
    found += [Damage(store.references.name(tag), message) for tag, message in lost.items()]
    if not repair:
        return tuple(found)
    repaired = []
    for damage in sorted(found, key=lambda d: _kind(store, d.name) != "ac"):
        digest = Digest("blake3:" + damage.name.rpartition("/")[2])
        if damage.name == store.blobs.name(digest):
            store.blobs.distrust(digest)  # what is wrong with it nobody may use as a copy
        else:
            _delete(store, damage.name)
        repaired.append(evolve(damage, repaired=True))
    store.forget()
    return tuple(repaired)


def _unreadable(
    store: Store, infos: Iterable[ObjectInfo], progress: Callable[[int], None] | None
) -> Iterator[tuple[str, CacheError]]:
    """The blobs and open layers among these that don't verify, or are gone by now."""
    read = 0
    for info in infos:
        if _kind(store, info.name) != "blobs":
            continue
        parts = info.name.removeprefix(store.objects.prefix + "blobs/").split("/")
        digest = Digest(f"{parts[0]}:{parts[-1]}")
        try:
            if is_tree_digest(digest):
                store.blobs.examine(TreeDigest(digest))
                read += info.size
                continue
            with store.blobs.open(digest) as content:
                while chunk := content.read(1 << 20):
                    read += len(chunk)
                    if progress is not None:
                        progress(read)
        except CacheError as error:
            yield info.name, error


def _is_archived(store: Store, record: Record, digest: Digest, there: set[str]) -> bool:
    """Whether the record names an open layer that has an archive now, or an archive that is gone
    of a layer that is still open."""
    if record.layer is None or not record.layer.is_open:
        return False
    archive = store.blobs.named_archive(record.layer.tree)
    names = {store.blobs.name(d) for d in (record.layer.descriptor.digest, archive) if d}
    return digest in (record.layer.descriptor.digest, archive) and bool(names & there)
