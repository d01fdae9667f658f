"""The commands on a cache: cache ls|du|gc|prune|verify, stats, images."""

from __future__ import annotations

import contextlib
import os
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from layercache.cli.request import print_json
from layercache.errors import CorruptObject, NotFound, UsageError
from layercache.model.descriptors import Layer
from layercache.model.units import parse_size
from layercache.reports.totals import Totals
from layercache.reports.visible import visible
from layercache.reports.wording import size_text
from layercache.store.backend import InDirectory
from layercache.store.collection import GRACE, Collected, Damage, collect, entries_of, usage, verify
from layercache.store.marker import is_cache
from layercache.store.open import default_cache, open_store
from layercache.store.open_layers import tree_named
from layercache.store.retention import (
    AnyEntry,
    KeepBuilds,
    KeepDuration,
    KeepStorage,
    LabelFilter,
    MinFree,
    Only,
    Policy,
)

if TYPE_CHECKING:
    from layercache.executors.rootfs.cache_listing import KeptCacheMount
    from layercache.store.parts import Cache

__all__ = [
    "run_du",
    "run_gc",
    "run_images",
    "run_ls",
    "run_prune",
    "run_seal",
    "run_stats",
    "run_verify",
]

_DAMAGED = 1
_CACHE_MOUNTS = "type=exec.cachemount"
_SHOWN_KEY = 12


def open_named(options: Namespace) -> Cache:
    """The store that the options name."""
    location = options.cache or default_cache()
    store = open_store(location, durability=options.durability, salt=options.salt)
    backend = store.backend
    if options.cache and isinstance(backend, InDirectory) and not os.path.exists(backend.directory):
        raise UsageError(f"--cache {options.cache}: there is no cache at {backend.directory}")
    return store


def run_ls(options: Namespace) -> int:
    """`layercache cache ls`: records, the most valuable first."""
    wanted = Only(AnyEntry(), _labels(options))
    with open_named(options) as store:
        entries = [entry for entry in entries_of(store) if wanted.takes(entry)]
    if options.json:
        rows = [
            {
                "key": entry.key,
                "text": entry.text,
                "used": entry.used,
                "seconds": entry.seconds,
                "size": entry.size,
                "pins": list(entry.pins),
                "labels": [dict(labels) for labels in entry.labels],
            }
            for entry in entries
        ]
        print_json({"schema": 1, "records": rows})
        return 0
    for entry in entries:
        pins = f"  [{', '.join(map(_familiar, entry.pins))}]" if entry.pins else ""
        text = entry.text if len(entry.text) <= 60 else entry.text[:59] + "…"
        print(
            f"{entry.key[:_SHOWN_KEY]}  {size_text(entry.size):>9}  {entry.seconds:8.1f} s  "
            f"{_line(text)}{pins}"
        )
    return 0


def run_du(options: Namespace) -> int:
    """`layercache cache du`: bytes by kind of object."""
    with open_named(options) as store:
        found = usage(store)
        mounts = _cache_mounts(store)
    if options.json:
        sizes: Mapping[str, object] = {
            kind: {"objects": found.objects[kind], "bytes": size}
            for kind, size in found.bytes.items()
        }
        listed = [_row_of(mount) for mount in mounts]
        print_json({"schema": 1, "total": found.total, "kinds": sizes, "cache_mounts": listed})
        return 0
    for kind, size in found.bytes.items():
        print(f"{kind:12} {found.objects[kind]:8} {size_text(size):>10}")
    print(f"{'total':12} {sum(found.objects.values()):8} {size_text(found.total):>10}")
    for mount in mounts:
        print(_about(mount))
    return 0


def run_gc(options: Namespace) -> int:
    """`layercache cache gc`: remove the objects that the policy does not keep."""
    policies: list[Policy] = []
    if options.keep_duration:
        policies.append(KeepDuration(_duration(options.keep_duration)))
    if options.keep_builds is not None:
        policies.append(KeepBuilds(options.keep_builds))
    if options.keep_storage:
        policies.append(KeepStorage(parse_size(options.keep_storage)))
    if options.min_free:
        policies.append(MinFree(parse_size(options.min_free)))
    labels = _labels(options)
    if not policies and not labels:
        raise UsageError(
            "gc needs a policy: --keep-duration, --keep-builds, --keep-storage, --min-free or "
            "--filter"
        )
    if labels:
        policies = [Only(policy, labels) for policy in policies or [AnyEntry()]]
    with open_named(options) as store:
        done = collect(store, policies, dry_run=options.dry_run)
        if not options.dry_run and is_cache(store.local.objects):
            unused = _duration(options.keep_duration) if options.keep_duration else GRACE
            _prune_unpacked(store, unused, caches=False)
    return _show(options, done)


def run_prune(options: Namespace) -> int:
    """`layercache cache prune`: remove unreferenced objects; with --all, everything; with
    `--filter type=exec.cachemount`, cache mounts alone.
    """
    if any(text.startswith(("type=", "id=")) for text in options.filter):
        return _prune_cache_mounts(options)
    labels = _labels(options)
    if labels and not options.all:
        raise UsageError(
            "prune --filter needs --all: without it, prune removes only objects that no record "
            "refers to, and these have no labels"
        )
    everything = options.all and not labels
    with open_named(options) as store:
        if labels:
            policy = Only(AnyEntry(), labels)
            done = collect(store, [policy], dry_run=options.dry_run, grace=0.0)
        elif options.all:
            done = collect(store, [], dry_run=options.dry_run, everything=True, grace=0.0)
        else:
            done = collect(store, [], dry_run=options.dry_run, grace=GRACE)
        if not options.dry_run and is_cache(store.local.objects):
            _prune_unpacked(store, 0.0 if everything else GRACE, caches=everything)
            if everything:
                _prune_workspaces(store)
    return _show(options, done)


def _labels(options: Namespace) -> tuple[LabelFilter, ...]:
    return tuple(LabelFilter.parse(text) for text in options.filter)


def _prune_unpacked(store: Cache, unused_for: float, *, caches: bool) -> None:
    """Delete unpacked layers beside the store that no build needed recently."""
    from layercache.store.open import scratch_directory

    directory = scratch_directory(store)
    if sys.platform != "linux" or not os.path.isdir(directory):
        return
    from layercache.executors.rootfs import RootfsExecutor

    with RootfsExecutor(directory) as executor:
        executor.prune(unused_for=unused_for, caches=caches)


def _cache_mounts(store: Cache) -> Sequence[KeptCacheMount]:
    """The cache mounts beside a store."""
    from layercache.executors.rootfs.cache_listing import cache_mounts
    from layercache.store.open import scratch_directory

    return cache_mounts(scratch_directory(store)) if is_cache(store.local.objects) else ()


def _prune_cache_mounts(options: Namespace) -> int:
    """Delete the contents of cache mounts: of all, or of those with the ids of the filters."""
    ids = {text.removeprefix("id=") for text in options.filter if text.startswith("id=")}
    others = [text for text in options.filter if not text.startswith("id=")]
    if set(others) != {_CACHE_MOUNTS}:
        raise UsageError(
            f"{' '.join(options.filter)} is no filter of cache mounts: expected "
            f"{_CACHE_MOUNTS}, and perhaps id=ID, and no label"
        )
    with open_named(options) as store:
        chosen = [one for one in _cache_mounts(store) if not ids or one.id in ids]
        gone: Sequence[KeptCacheMount] = chosen
        if chosen and not options.dry_run:
            from layercache.executors.rootfs import RootfsExecutor
            from layercache.store.open import scratch_directory

            with RootfsExecutor(scratch_directory(store)) as executor:
                gone = executor.discard_cache_mounts(chosen)
    freed = sum(one.size for one in gone)
    if options.json:
        print_json(
            {
                "schema": 1,
                "dry_run": options.dry_run,
                "freed": freed,
                "cache_mounts": [{**_row_of(one), "keep": one not in gone} for one in chosen],
            }
        )
        return 0
    for one in chosen:
        print(f"{'goes ' if one in gone else 'stays'} {_about(one)}")
    would = "would free" if options.dry_run else "freed"
    print(f"{len(gone)} cache mounts: {would} {size_text(freed)}")
    return 0


def _row_of(mount: KeptCacheMount) -> dict[str, object]:
    return {"id": mount.id, "bytes": mount.size, "used": mount.used}


def _about(mount: KeptCacheMount) -> str:
    from datetime import UTC, datetime

    used = datetime.fromtimestamp(mount.used, UTC).strftime("%Y-%m-%d %H:%M UTC")
    return f"cache mount {_line(mount.id) or '(unnamed)'}  {size_text(mount.size)}  used {used}"


def _prune_workspaces(store: Cache) -> None:
    """Empty the workspaces beside the store that no build is using."""
    from layercache.executors.workspace.executor import Workspace
    from layercache.store.open import scratch_directory

    directory = scratch_directory(store, "workspaces")
    if os.path.isdir(directory):
        for project in os.listdir(directory):
            if os.path.islink(os.path.join(directory, project)):
                continue  # the target of a link does not belong to the cache
            Workspace(os.path.join(directory, project)).prune()


def _show(options: Namespace, done: Collected) -> int:
    gone = [verdict for verdict in done.verdicts if not verdict.keep]
    held = [v for v in done.verdicts if v.keep and v.reason != "within the policy"]
    if options.json:
        rows = [
            {"key": v.entry.key, "text": v.entry.text, "keep": v.keep, "reason": v.reason}
            for v in done.verdicts
        ]
        print_json(
            {
                "schema": 1,
                "dry_run": done.dry_run,
                "freed": done.freed,
                "removed": len(done.removed),
                "records": rows,
            }
        )
        return 0
    # Kept records are listed only for a dry run, not after each collection.
    for verdict in [*gone, *(held if done.dry_run else ())]:
        word = "stays" if verdict.keep else "goes "
        entry = verdict.entry
        print(f"{word} {entry.key[:_SHOWN_KEY]}  {_line(entry.text)}: {_line(verdict.reason)}")
    would = "would free" if done.dry_run else "freed"
    print(f"{len(gone)} records, {len(done.removed)} objects: {would} {size_text(done.freed)}")
    return 0


def run_verify(options: Namespace) -> int:
    """`layercache cache verify [--repair]`: status 1 if damage was found and not repaired."""
    with open_named(options) as store:
        found = [*verify(store, repair=options.repair)]
        found += _verify_unpacked(store, repair=options.repair)
    left = [damage for damage in found if not damage.repaired]
    if options.json:
        rows = [{"name": d.name, "message": d.message, "repaired": d.repaired} for d in found]
        print_json({"schema": 1, "ok": not left, "damage": rows})
    else:
        for damage in found:
            word = "removed" if damage.repaired else "damaged"
            print(f"{word}: {_line(damage.name)}: {_line(damage.message)}", file=sys.stderr)
        print(f"{len(found)} damaged, {len(found) - len(left)} removed")
    return _DAMAGED if left else 0


def _verify_unpacked(store: Cache, *, repair: bool) -> list[Damage]:
    """Unpacked layers beside the store that changed since they were made; with `repair`, they are
    made again when they are next needed.
    """
    from layercache.store.open import scratch_directory

    directory = scratch_directory(store)
    if sys.platform != "linux" or not os.path.isdir(directory):
        return []
    from layercache.executors.rootfs.seal import damaged_copies

    message = "an unpacked layer was changed since it was made; it is made anew when needed"
    found = []
    for path in damaged_copies(directory):
        if repair:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(path, "state"))
        found.append(Damage(path, message, repaired=repair))
    return found


def run_seal(options: Namespace) -> int:
    """`layercache cache seal`: make the archives of all open layers; status 1 if one is lost."""
    lost: list[tuple[str, str]] = []
    sizes = []
    with open_named(options) as store:
        is_cache(store.local.objects)  # otherwise the mistake is reported
        for info in store.local.blobs.open_infos():
            tree = tree_named(info.name)
            assert tree is not None  # the name of an open layer
            try:
                sizes.append(store.blobs.sealed(Layer.opened(tree, info.size)).descriptor.size)
            except (CorruptObject, NotFound) as error:
                lost.append((tree, str(error)))
        store.commit()
    if options.json:
        rows = [{"name": name, "message": message} for name, message in lost]
        print_json({"schema": 1, "sealed": len(sizes), "bytes": sum(sizes), "lost": rows})
    else:
        for _, message in lost:
            print(f"lost: {_line(message)}; its step makes it again", file=sys.stderr)
        print(f"{len(sizes)} layers sealed: {size_text(sum(sizes))}")
    return _DAMAGED if lost else 0


def run_stats(options: Namespace) -> int:
    """`layercache stats`: counts over the cache's life."""
    with open_named(options) as store:
        is_cache(store.local.objects)  # otherwise the mistake is reported
        kept = store.derived.get("stats", "life")
        totals = Totals.decode(kept) if kept is not None else Totals()
    if options.json:
        print_json(totals.to_dict())
    else:
        print(totals)
    return 0


def run_images(options: Namespace) -> int:
    """`layercache images [rm NAME…]`."""
    from layercache.store.tags import list_tags, remove_tag

    with open_named(options) as store:
        is_cache(store.local.objects)  # otherwise the mistake is reported
        if options.verb == "rm":
            if not options.names:
                raise UsageError("images rm needs the names to remove")
            missing = [name for name in options.names if not remove_tag(store, name)]
            store.commit()
            if missing:
                raise UsageError(f"no image in the cache is named {', '.join(missing)}")
            return 0
        tags = list_tags(store)
    if options.json:
        rows = [
            {
                "name": tag.name,
                "manifest_digest": tag.manifest.digest,
                "config_digest": tag.config_descriptor.digest,
                "layers": [layer.digest for layer in tag.layers],
                "size": tag.size,
            }
            for tag in tags
        ]
        print_json({"schema": 1, "images": rows})
        return 0
    for tag in tags:
        print(f"{_familiar(tag.name)}  {tag.config_descriptor.digest[7:19]}  {size_text(tag.size)}")
    return 0


def _line(text: str) -> str:
    """Text from a cache as one line without terminal control sequences, as anyone may have
    written it.
    """
    return visible(" ".join(text.split()))


def _familiar(name: str) -> str:
    """A tag's name in its short form for people."""
    from layercache.oci.references import Reference

    return Reference.parse(name).familiar


_UNITS = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0, "w": 604_800.0}


def _duration(text: str) -> float:
    """The seconds of `90`, `12h`, `7d`, `2w`, or of a duration in Go's notation."""
    number, unit = text[:-1], text[-1:].lower()
    try:
        if unit.isdigit():
            return float(text)
        if unit in _UNITS and number.replace(".", "", 1).isdigit():
            return float(number) * _UNITS[unit]
    except ValueError:
        pass  # not a plain number: read as Go's form below
    from layercache.model.units import parse_duration

    return parse_duration(text) / 1e9
