"""Runs the small builds in `peers/`: what BuildKit gave for each, or where we differ on purpose.

A case has the Dockerfile and its files in the language of worlds (`worlds`), what to build, and
`expect`: facts about the image that BuildKit made of it. Facts are checked one by one, so a case
says only what it is about:

* `fails`: a part of the message, where the build is refused or fails;
* `tree`: path → type, mode, uid, gid, mtime, content, target or xattrs, or null for "not there";
* `config`: name in the image's "config" → value; `image`: the same for the outermost level;
* `history`: the lines that the build adds, from the first;
* `warns`: parts of the warnings that reading or building it has to give.

`deviates` holds the sentence in which docs/explanation/dockerfile-differences.md names a
difference that is meant; `expect` then is what is right here, and `buildkit` what BuildKit gives.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import tempfile
from collections.abc import Mapping
from typing import Any

import attrs

from layercache.builds.builder import Builder
from layercache.builds.result import BuildResult
from layercache.dockerfile.recipe import Dockerfile
from layercache.errors import LayerCacheError
from layercache.events import Event, Note
from layercache.executors.rootfs import RootfsExecutor
from layercache.store.open import open_store
from layercache.testing.images import busybox_layer, make_layout

from .running import PATH, place_of_scenarios, probe
from .web import FileServer
from .worlds import World, fill_placeholders

__all__ = ["CASES", "Built", "build", "differences", "load_cases"]

CASES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "peers")
_DATED = "core.logallrefupdates=false"
_BASE: list[bytes] = []


@attrs.define
class Built:
    """How a case ended: the result, or the error; and every warning on the way."""

    result: BuildResult | None = None
    error: LayerCacheError | None = None
    warnings: list[str] = attrs.field(factory=list)

    def notice(self, event: Event) -> None:
        """Keep what is said on the way."""
        if isinstance(event, Note):
            self.warnings.append(event.message)


def load_cases() -> list[dict[str, Any]]:
    """All cases, in the order of their files; a case's `id` is file and name."""
    found = []
    for name in sorted(os.listdir(CASES)):
        with open(os.path.join(CASES, name), encoding="utf-8") as file:
            for case in json.load(file):
                found.append({"id": f"{name.removesuffix('.json')}-{case['name']}", **case})
    return found


def build(case: Mapping[str, Any], check: Any = None) -> Built:
    """Build `case`, with a cache of its own; `check` is called with the result while it lives."""
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="layercache-peer-", dir=place_of_scenarios())
        )
        table = {"@ID@": secrets.token_hex(6)}
        if case.get("git"):
            served = os.path.join(directory, "served")
            os.mkdir(served)
            _repository(served, case["git"])
            table["@HTTP@"] = stack.enter_context(FileServer(served)).base
        case = fill_placeholders(dict(case), table)
        context = World(os.path.join(directory, "context"), case.get("files") or {}).root
        layout = os.path.join(directory, "base")
        make_layout(layout, [_busybox()], {"Env": [f"PATH={PATH}"], "Cmd": ["sh"]})
        contexts = {"busybox": f"oci-layout://{layout}"}
        for name, files in (case.get("contexts") or {}).items():
            contexts[name] = World(os.path.join(directory, "named-" + name), files).root
        store = os.path.join(directory, "store")
        executor = stack.enter_context(RootfsExecutor(os.path.join(store, "rootfs")))
        built = Built()
        try:
            if "dockerfile" in case:
                recipe = Dockerfile.parse(_text(case["dockerfile"]))
            else:
                recipe = Dockerfile.in_context(context)
            built.warnings += recipe.warnings
            builder = Builder(open_store(store), executor=executor, observers=[built.notice])
            stack.callback(builder.store.close)
            built.result = builder.build(
                recipe,
                context=context,
                contexts=contexts,
                args=case.get("args") or {},
                target=case.get("target"),
                platform=case.get("platform"),
                pull=False,
                project=case["id"],
            )
        except LayerCacheError as error:
            built.error = error
        if check is not None:
            check(built)
        return built


def differences(case: Mapping[str, Any]) -> list[str]:
    """Sentences about every fact of `case` that does not hold here."""
    found: list[str] = []
    build(case, lambda built: found.extend(_compare(case["expect"], built)))
    return found


def _compare(expect: Mapping[str, Any], built: Built) -> list[str]:
    found = []
    for part in expect.get("warns", ()):
        if not any(part in warning for warning in built.warnings):
            found.append(f"no warning says {part!r}: {built.warnings}")
    if "fails" in expect:
        if built.error is None:
            return [*found, f"it builds, though {expect['fails']!r} was to be said"]
        if expect["fails"] not in str(built.error):
            return [*found, f"it fails with {built.error}, not with {expect['fails']!r}"]
        return found
    if built.result is None or built.result.built is None:
        return [*found, f"it fails: {built.error}"]
    tree = built.result.tree()
    for path, wanted in expect.get("tree", {}).items():
        found += _compare_entry(path, wanted, probe(tree, path))
    image = _image(built.result)
    for level, facts in (("config", image["config"]), ("image", image)):
        for name, value in expect.get(level, {}).items():
            if facts.get(name) != value:
                found.append(f"{level} {name} should be {value!r}, is {facts.get(name)!r}")
    if "history" in expect:
        lines = [entry.created_by for entry in built.result.built.history]
        wanted_lines = expect["history"]
        if lines[: len(wanted_lines)] != wanted_lines:
            found.append(f"history should be {wanted_lines}, is {lines}")
    return found


def _compare_entry(
    path: str, wanted: Mapping[str, Any] | None, got: Mapping[str, Any] | None
) -> list[str]:
    if wanted is None or got is None:
        return [] if wanted is got else [f"{path}: should be {wanted}, is {got}"]
    return [
        f"{path}: {key} should be {value!r}, is {got.get(key)!r}"
        for key, value in wanted.items()
        if got.get(key) != value
    ]


def _image(result: BuildResult) -> dict[str, Any]:
    assert result.built is not None
    config = result.built.config
    image: dict[str, Any] = config.to_oci([], None, ())
    return image


def _text(lines: str | list[str]) -> str:
    return lines if isinstance(lines, str) else "\n".join(lines) + "\n"


def _busybox() -> bytes:
    if not _BASE:
        layer = busybox_layer()
        if layer is None:
            raise SystemExit("the cases need a static busybox (package busybox-static)")
        _BASE.append(layer)
    return _BASE[0]


def _repository(served: str, commits: list[Mapping[str, Any]]) -> None:
    """A repository at /repo.git, as files that any web server can serve; branch main."""
    work = os.path.join(served, "..", "work")
    os.mkdir(work)

    def git(*args: str, cwd: str = work) -> None:
        who = {"NAME": "a", "EMAIL": "a@example.com", "DATE": "2020-01-01T00:00:00Z"}
        stamps = {f"GIT_{role}_{k}": v for role in ("AUTHOR", "COMMITTER") for k, v in who.items()}
        nobody = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
        subprocess.run(
            ["git", "-c", _DATED, *args],
            cwd=cwd,
            env={**os.environ, **stamps, **nobody},
            check=True,
            capture_output=True,
        )

    git("init", "-q", "-b", "main")
    for commit in commits:
        World(work, commit["files"])
        git("add", "-A")
        git("commit", "-q", "-m", "c")
        if commit.get("tag"):
            git("tag", commit["tag"])
    git("clone", "-q", "--bare", work, os.path.join(served, "repo.git"))
    git("update-server-info", cwd=os.path.join(served, "repo.git"))
