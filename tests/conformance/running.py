"""Runs one scenario with the library and compares with what BuildKit was seen to do."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from layercache.builds.builder import Builder
from layercache.builds.exporting import export
from layercache.builds.result import BuildResult
from layercache.dockerfile.recipe import Dockerfile
from layercache.errors import LayerCacheError
from layercache.executors.rootfs import RootfsExecutor
from layercache.reports.report import Report
from layercache.store.open import open_store
from layercache.testing.images import busybox_layer, make_layout, tar_of

from .web import Web
from .worlds import EPOCH, World, fill_placeholders

__all__ = ["ENGINE", "Outcome", "place_of_scenarios", "probe", "run_scenario"]

ENGINE = "buildkit-head"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_BUSYBOX: list[bytes] = []


@attrs.define
class Outcome:
    """How a scenario went: sentences about every difference, and the hits that were better."""

    id: str
    differences: list[str] = attrs.field(factory=list)
    better: int = 0
    skipped: str = ""


def run_scenario(scenario: Mapping[str, Any], stale: bool) -> Outcome:
    """Run every build of `scenario`; `stale` forgives misses where BuildKit hits."""
    outcome = Outcome(scenario["id"])
    if ENGINE not in scenario["expect"]:
        outcome.skipped = f"no {ENGINE} data"
        return outcome
    with (
        tempfile.TemporaryDirectory(
            prefix="layercache-scenario-", dir=place_of_scenarios()
        ) as directory,
        _Scenario(scenario, directory, outcome, stale) as running,
    ):
        running.run()
    return outcome


def place_of_scenarios() -> str | None:
    """A file system in memory where there is one: most of a scenario's time is that of the disk.

    None for the default, also where TMPDIR was chosen or the one in memory runs no programs.
    """
    if "TMPDIR" in os.environ:
        return None
    try:
        found = os.statvfs(_MEMORY)
    except OSError:
        return None
    forbidding = os.ST_NOEXEC | os.ST_NODEV | os.ST_NOSUID
    small = found.f_bavail * found.f_frsize < _ROOM
    usable = os.access(_MEMORY, os.W_OK) and not found.f_flag & forbidding
    return None if small or not usable else _MEMORY


_MEMORY = "/dev/shm"
_ROOM = 1 << 28


class _Scenario:
    def __init__(
        self, scenario: Mapping[str, Any], directory: str, outcome: Outcome, stale: bool
    ) -> None:
        self.directory = directory
        self.outcome = outcome
        self.stale = stale
        self.web = Web({})
        table = {"@SALT@": secrets.token_hex(6), "@HTTP@": self.web.base}
        # A private salt keeps what was observed (expect) as it is.
        self.scenario = fill_placeholders(dict(scenario), table)
        self.web.pages.update({u: dict(p) for u, p in (self.scenario.get("http") or {}).items()})
        self.store = os.path.join(directory, "store")
        self.worlds = {"": World(os.path.join(directory, "context"), self.scenario["files"])}
        self.dockerfiles: dict[tuple[str, str], str] = {}
        self.images: dict[str, str] = {}
        self.same: dict[str, str] = {}
        self.configs: dict[str, str | None] = {}
        self.executor: RootfsExecutor | None = None

    def __enter__(self) -> _Scenario:
        return self

    def __exit__(self, *_: object) -> None:
        if self.executor is not None:
            self.executor.close()
        self.web.close()

    def run(self) -> None:
        name = self.scenario.get("dockerfile_name", "Dockerfile")
        self.write_dockerfile("", name, self.scenario["dockerfile"])
        for context, spec in (self.scenario.get("contexts") or {}).items():
            root = os.path.join(self.directory, "context-" + context)
            self.worlds[context] = World(root, spec.get("files", {}))
            if spec.get("dockerfile"):
                self.write_dockerfile(context, "Dockerfile", spec["dockerfile"])
        self.make_base()
        for image, spec in (self.scenario.get("images") or {}).items():
            self.make_image(image, spec)
        for number, build in enumerate(self.scenario["builds"]):
            now = EPOCH + 1000 * number
            for operation in build.get("mutate", ()):
                self.mutate(operation, now)
            self.build(number, build)

    def note(self, build: int, text: str) -> None:
        self.outcome.differences.append(f"build {build}: {text}")

    # -- the world ----------------------------------------------------------------------------

    def write_dockerfile(self, context: str, name: str, text: str, mtime: int = EPOCH) -> None:
        self.dockerfiles[context, name] = text
        hidden = self.scenario.get("no_dockerfile_in_context") and not context
        if hidden:
            place = os.path.join(self.directory, "elsewhere", name)
        else:
            place = self.worlds[context].path(name)
        os.makedirs(os.path.dirname(place), exist_ok=True)
        with open(place, "w", encoding="utf-8", newline="") as out:
            out.write(text)
        os.utime(place, (mtime, mtime))

    def mutate(self, operation: Mapping[str, Any], now: int) -> None:
        kind, context = operation["op"], operation.get("context", "")
        default = self.scenario.get("dockerfile_name", "Dockerfile")
        if kind == "dockerfile":
            name = operation.get("name", default)
            self.write_dockerfile(context, name, operation["content"], now)
        elif kind == "dockerfile_replace":
            name = operation.get("name", default)
            text = self.dockerfiles[context, name]
            changed = text.replace(operation["old"], operation["new"])
            self.write_dockerfile(context, name, changed, now)
        elif kind == "image":
            spec = dict((self.scenario.get("images") or {}).get(operation["name"], {}))
            spec.update({k: v for k, v in operation.items() if k in {"dockerfile", "files"}})
            self.make_image(operation["name"], spec)
        elif kind == "http":
            self.web.mutate(operation)
        elif kind == "clone_context":
            target = os.path.join(self.directory, "context-" + operation["to"])
            source = self.worlds[context].root
            shutil.copytree(source, target, symlinks=True)
            _copy_stamps(source, target)
            world = World.__new__(World)
            world.root = target
            self.worlds[operation["to"]] = world
            for (owner, name), text in list(self.dockerfiles.items()):
                if owner == context:
                    self.dockerfiles[operation["to"], name] = text
        elif kind == "prune":
            shutil.rmtree(self.store, ignore_errors=True)
        else:
            self.worlds[context].mutate(operation, now)

    def make_base(self) -> None:
        if not _BUSYBOX:
            layer = busybox_layer()
            if layer is None:
                raise SystemExit("the scenarios need a static busybox (package busybox-static)")
            _BUSYBOX.append(layer)
        layout = os.path.join(self.directory, "base")
        salt = tar_of({"salt": secrets.token_bytes(16)})
        config = {"Env": [f"PATH={PATH}"], "Cmd": ["/bin/sh"]}
        make_layout(layout, [_BUSYBOX[0], salt], config)
        self.images["base"] = f"oci-layout://{layout}"

    def make_image(self, name: str, spec: Mapping[str, Any]) -> None:
        """Build an image of `images`, with a cache of its own, as an OCI layout."""
        with tempfile.TemporaryDirectory(dir=self.directory) as scratch:
            world = World(os.path.join(scratch, "context"), spec.get("files") or {})
            layout = os.path.join(self.directory, "image-" + secrets.token_hex(4))
            builder, executor = self.make_builder(os.path.join(scratch, "store"))
            with executor:
                recipe = Dockerfile.parse(spec["dockerfile"])
                result = builder.build(recipe, context=world.root, contexts=self.images)
                export(result, f"type=oci,dest={layout},tar=false")
        self.images[name] = f"oci-layout://{layout}"
        self.images[name.removesuffix(":latest")] = self.images[name]

    # -- a build ------------------------------------------------------------------------------

    def make_builder(
        self, store: str, secret_values: Mapping[str, str] | None = None, **tiers: Any
    ) -> tuple[Builder, RootfsExecutor]:
        values = {k: v.encode() for k, v in (secret_values or {}).items()}
        executor = RootfsExecutor(os.path.join(store, "rootfs"), secrets=values)
        return Builder(open_store(store, **tiers), executor=executor), executor

    def build(self, number: int, build: Mapping[str, Any]) -> None:
        expected = self.scenario["expect"][ENGINE][number]
        options = build.get("options") or {}
        try:
            result = self.perform(build, self.store)
            report = result.report
        except LayerCacheError as error:
            found = error.report
            report = found if isinstance(found, Report) else Report(ok=False)
            result = None
            if isinstance(expected, dict):
                return
            observed = self.observed(number)
            if observed.get("ok", True):
                self.note(number, f"failed: {error}")
                return
        if isinstance(expected, dict):
            self.note(number, f"succeeded, but {ENGINE} says: {expected['error'][:200]}")
            return
        if result is not None and not self.observed(number).get("ok", True):
            self.note(number, f"succeeded, but {ENGINE} failed")
        better = self.compare_steps(number, expected, report)
        if result is None:
            return
        if better:
            self.check_better(number, build, result)
        self.compare_probes(number, result)
        self.compare_image(number, result)
        self.compare_config(number, result)
        del options

    def observed(self, number: int) -> Mapping[str, Any]:
        found = self.scenario["observed"].get(ENGINE, [])
        return found[number] if number < len(found) else {}

    def perform(self, build: Mapping[str, Any], store: str, **more: Any) -> BuildResult:
        options = build.get("options") or {}
        context = options.get("context", "")
        where = options.get("dockerfile_context", context)
        name = options.get("file", self.scenario.get("dockerfile_name", "Dockerfile"))
        if self.scenario.get("no_dockerfile_in_context") and not where:
            path = os.path.join(self.directory, "elsewhere", name)
        else:
            path = self.worlds[where].path(name)
        contexts: dict[str, Any] = dict(self.images)
        for alias, target in (options.get("contexts") or {}).items():
            contexts[alias] = self.worlds[target].root if target in self.worlds else target
        tiers: dict[str, Any] = {}
        for direction in ("cache_to", "cache_from"):
            if direction in options:
                places = [
                    os.path.join(self.directory, "c-" + c["name"]) for c in options[direction]
                ]
                tiers[direction] = places
        builder, executor = self.make_builder(store, options.get("secrets"), **tiers)
        with executor, _environment(options.get("env") or {}):
            result = builder.build(
                Dockerfile.load(path),
                context=self.worlds[context].root,
                contexts=contexts,
                args=build.get("args") or {},
                target=options.get("target"),
                no_cache=more.get("no_cache", bool(options.get("no_cache"))),
                no_cache_filter=options.get("no_cache_filter") or (),
                labels=options.get("labels") or {},
                platform=options.get("platform"),
                network=options.get("network") or "default",
                add_hosts=[tuple(h.split(":", 1)) for h in options.get("add_hosts") or ()],
                shm_size=_size(options.get("shm_size")),
                ulimits=options.get("ulimits") or (),
                pull=False,
                project=self.scenario["id"],
            )
            builder.store.close()
            return result

    # -- comparing ----------------------------------------------------------------------------

    def compare_steps(self, number: int, expected: list[str | None], report: Report) -> bool:
        """Note differences; whether a step was a hit where BuildKit missed."""
        wanted = self.scenario["steps"][number]
        mine = {(s.stage, s.index, s.onbuild): s for s in report.steps}
        by_key = {
            s.key: s.decision for s in report.steps if s.key and s.decision in {"hit", "miss"}
        }
        better = False
        for step, decision in zip(wanted, expected, strict=True):
            place = (step["stage"], step["index"], step.get("onbuild"))
            found = mine.get(place)
            if found is None:
                self.note(number, f"no step {place} {step['text']!r}")
                continue
            got = found.decision
            if decision in {"hit", "miss"}:
                if got == "skip" or got is None:
                    got = (by_key.get(found.key) if found.key else None) or got
                if decision == "miss" and got == "hit":
                    better = True
                elif decision != got and not (self.stale and got == "miss"):
                    why = f" ({found.reason.to_dict()})" if found.reason else ""
                    self.note(number, f"{step['text']!r}: expected {decision}, got {got}{why}")
            elif decision is None and got is not None:
                self.note(number, f"{step['text']!r}: decides nothing, got {got}")
            elif decision == "skip" and got is None:
                self.note(number, f"{step['text']!r}: expected skip, got no decision")
        return better

    def check_better(self, number: int, build: Mapping[str, Any], result: BuildResult) -> None:
        """A hit where BuildKit misses is right only if a rebuild gives the same tree."""
        with tempfile.TemporaryDirectory(dir=self.directory) as scratch:
            clean = self.perform(build, os.path.join(scratch, "store"), no_cache=True)
            ours, theirs = tree_of(result), tree_of(clean)
        if ours == theirs:
            self.outcome.better += 1
            return
        paths = [p for p in {**ours, **theirs} if ours.get(p) != theirs.get(p)]
        self.note(number, f"a hit where {ENGINE} misses gives another tree: {paths[:5]}")

    def compare_probes(self, number: int, result: BuildResult) -> None:
        probes = self.observed(number).get("probe") or {}
        tree = result.tree()
        for path, wanted in probes.items():
            found = probe(tree, path)
            if self.stale and wanted is not None and found is not None:
                # What BuildKit reused is of an older source: its content and modes may be others.
                wanted = {**wanted, "content": found.get("content"), "mode": found.get("mode")}
            if wanted is None or found is None:
                if wanted is not found:
                    self.note(number, f"{path}: expected {wanted}, found {found}")
                continue
            for key in ("type", "mode", "uid", "gid", "content", "target"):
                if key not in wanted or _random(wanted[key]):
                    continue
                if not self._same(wanted[key], found.get(key)):
                    self.note(
                        number, f"{path}: {key} should be {wanted[key]!r}, is {found.get(key)!r}"
                    )

    def _same(self, wanted: object, found: object) -> bool:
        """Equal, or the same lines in the order in which another file system lists names."""
        if wanted == found or not isinstance(wanted, str) or not isinstance(found, str):
            return wanted == found
        unsorted = any(
            "find " in line and "sort" not in line
            for text in self.dockerfiles.values()
            for line in text.splitlines()
        )
        return unsorted and sorted(wanted.splitlines()) == sorted(found.splitlines())

    def compare_image(self, number: int, result: BuildResult) -> None:
        """Builds that gave BuildKit one image or configuration give us one, too.

        Not so layers: where nothing changes we have none, and BuildKit an empty one.
        """
        observed = self.observed(number)
        if self.stale or result.built is None or result.image is None:
            return
        config = json.dumps(result.built.config.config_to_oci(), sort_keys=True)
        image = str(result.image.config_digest)
        for what, symbol, found in (
            ("image", observed.get("image"), image),
            ("configuration", observed.get("config"), config),
        ):
            if symbol is not None and self.same.setdefault(symbol, found) != found:
                self.note(number, f"another {what} than before, where {ENGINE} has {symbol} again")
        other = self.configs.setdefault(config, observed.get("config"))
        if other != observed.get("config"):
            self.note(number, f"the configuration of {other}, where {ENGINE} has another one")

    def compare_config(self, number: int, result: BuildResult) -> None:
        values = self.observed(number).get("config_values") or {}
        if not values or result.built is None:
            return
        config = result.built.config.config_to_oci()
        for key, wanted in values.items():
            if (config.get(key) or None) != (wanted or None):
                self.note(number, f"config {key}: expected {wanted!r}, found {config.get(key)!r}")


def _random(value: object) -> bool:
    return isinstance(value, str) and "<uuid-" in value


def probe(tree: Any, path: str) -> dict[str, Any] | None:
    """What a probe of BuildKit's image recorded, of ours."""
    name = os.fsencode(path.strip("/"))
    node = tree.lookup(name)
    if node is None:
        return None
    kinds = {
        stat.S_IFREG: "file",
        stat.S_IFDIR: "dir",
        stat.S_IFLNK: "symlink",
        stat.S_IFIFO: "fifo",
        stat.S_IFCHR: "chr",
        stat.S_IFBLK: "blk",
    }
    found: dict[str, Any] = {
        "type": kinds.get(stat.S_IFMT(node.mode), "other"),
        "mode": f"{stat.S_IMODE(node.mode):04o}",
        "uid": node.uid,
        "gid": node.gid,
        "mtime": node.mtime,
    }
    if node.is_file:
        with tree.open(name) as content:
            found["content"] = content.read().decode("utf-8", "surrogateescape")
    elif node.is_link:
        found["target"] = os.fsdecode(node.link)
    if node.xattrs:
        found["xattrs"] = {os.fsdecode(name): os.fsdecode(value) for name, value in node.xattrs}
    return found


def tree_of(result: BuildResult) -> dict[bytes, tuple[Any, ...]]:
    """The whole result: path → type, mode, owner, time, content, link, device."""
    tree = result.tree()
    found: dict[bytes, tuple[Any, ...]] = {}
    pending = [b""]
    while pending:
        directory = pending.pop()
        for name in tree.children(directory):
            path = directory + b"/" + name if directory else name
            node = tree.lookup(path)
            found[path] = (node.mode, node.uid, node.gid, node.mtime, node.content, node.link)
            if node.is_dir:
                pending.append(path)
    return found


def _size(value: object) -> int | None:
    if value is None:
        return None
    from layercache.model.units import parse_size

    return value if isinstance(value, int) else parse_size(str(value))


def _copy_stamps(source: str, target: str) -> None:
    for directory, names, files in os.walk(source):
        for name in [*names, *files, "."]:
            path = os.path.join(directory, name)
            other = os.path.join(target, os.path.relpath(path, source))
            status = os.lstat(path)
            os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
