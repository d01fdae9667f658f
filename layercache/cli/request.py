"""Conversion of command-line options to a builder and a request."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from layercache._base.classes import evolve
from layercache.builds.builder import Builder
from layercache.builds.request import Request, project_of
from layercache.dockerfile.recipe import Dockerfile
from layercache.errors import MissingExtra, SourceError, UsageError
from layercache.model.descriptors import MAX_UNPACKED_SIZE
from layercache.model.graph import Origin

__all__ = ["pairs_of", "prepare", "print_json", "recipe_of"]


def print_json(value: Mapping[str, Any]) -> None:
    """One JSON object on standard output."""
    import json

    json.dump(value, sys.stdout, ensure_ascii=True)
    sys.stdout.write("\n")


def prepare(options: Namespace) -> tuple[Builder, Request]:
    """The builder and the request that the options describe."""
    from layercache.store.open import default_cache, open_store

    if options.tag:
        from layercache.oci.references import Reference

        for name in options.tag:
            Reference.parse(name)  # invalid values are refused before anything is built
    if options.annotation:
        from layercache.images.output_spec import parse_annotation

        for text in options.annotation:
            parse_annotation(text)
    store = open_store(
        options.cache or default_cache(),
        durability=options.durability,
        salt=options.salt,
        cache_from=options.cache_from,
        cache_to=options.cache_to,
    )
    if not options.quiet:
        _name_absent("--cache-from", options.cache_from)
        if options.cache and options.command != "build":
            _name_absent("--cache", [options.cache])
    request = _request(options)
    observers: list[Any] = []
    raw = bool(getattr(options, "raw_output", False))
    if options.progress == "json":
        from layercache.cli.summary import JsonLines

        observers.append(JsonLines())
    elif not options.quiet and (options.progress == "plain" or not options.json):
        from layercache.cli.summary import Plain

        observers.append(_terminal(raw) if options.progress == "auto" else Plain(raw=raw))
    if options.otel:
        from layercache.observers.otel import OtelSpans

        observers.append(OtelSpans())
    secrets = dict(map(_secret, options.secret))
    executor: Any = None
    if options.executor == "workspace":
        from layercache.builds.history import trail_id
        from layercache.executors.workspace.executor import Workspace
        from layercache.store.open import scratch_directory

        # One directory per context, whatever Dockerfile and target: its path counts in keys.
        project = project_of(evolve(request, recipe=(), target=None))
        directory = os.path.join(scratch_directory(store, "workspaces"), trail_id(project)[:32])
        executor = Workspace(directory, secrets=secrets, step_timeout=options.step_timeout)
    builder = Builder(
        store,
        executor=executor,
        observers=observers,
        jobs=options.jobs,
        executor_options={
            "secrets": secrets,
            "ssh": dict(map(_ssh, options.ssh)),
            "step_timeout": options.step_timeout,
            "allow_insecure": "security.insecure" in options.allow,
            "keep_bytecode": options.keep_bytecode,
            # Requesting it for the whole build also permits it.
            "allow_host_network": "network.host" in options.allow or options.network == "host",
        },
    )
    return builder, request


def _name_absent(option: str, locations: Sequence[str]) -> None:
    """Say which directories to read from hold no cache: a wrong path is found by this only."""
    from layercache.store.backend import InDirectory
    from layercache.store.backends import open_backend

    for location in locations:
        scheme = location.partition("://")[0] if "://" in location else "file"
        if scheme != "file" or (location.startswith("type=") and "type=local" not in location):
            continue
        backend = open_backend(location)
        if isinstance(backend, InDirectory) and not os.path.exists(
            os.path.join(backend.directory, "format")
        ):
            from layercache.reports.visible import visible

            print(
                f"note: {option} {visible(location)}: there is no cache at "
                f"{visible(backend.directory)}; nothing is reused from it",
                file=sys.stderr,
            )


def _terminal(raw: bool) -> Any:
    """The live display if there is a terminal and the extra is installed, otherwise plain lines."""
    if sys.stderr.isatty():
        from layercache.observers.live import Live

        try:
            return Live()
        except MissingExtra:
            pass  # the plain display shows the same
    from layercache.cli.summary import Plain

    return Plain(raw=raw)


def recipe_of(options: Namespace) -> tuple[str, Dockerfile]:
    """The directory of the context, and the Dockerfile that the options name."""
    context = _context(options)
    if options.file == "-":
        return context, Dockerfile.parse(sys.stdin.buffer.read(), "standard input")
    if options.file:
        return context, Dockerfile.load(options.file, context=context)
    return context, Dockerfile.in_context(context)


def _request(options: Namespace) -> Request:
    from layercache.reports.visible import visible

    context, recipe = recipe_of(options)
    for warning in recipe.warnings:
        if not options.json:
            print(f"layercache: warning: {visible(str(warning))}", file=sys.stderr)
    no_cache: bool | Callable[[Origin], bool] = options.no_cache
    trace: str | Callable[[Origin], str] = options.trace
    selections = []
    if options.no_cache_step or options.no_trace_step:
        from layercache.solver.step_filter import StepSelection

        if options.no_cache_step:
            uncached = StepSelection("--no-cache-step", options.no_cache_step)
            no_cache = no_cache or uncached
            selections.append(uncached)
        if options.no_trace_step:
            untraced = StepSelection("--no-trace-step", options.no_trace_step)
            trace = lambda origin: "off" if untraced(origin) else options.trace  # noqa: E731
            selections.append(untraced)
    return Request(
        recipe=recipe,
        context=context,
        trace=trace,
        args=pairs_of(options.build_arg, "--build-arg", bare=True),
        target=options.target,
        no_cache=no_cache,
        no_cache_filter=[s.strip() for text in options.no_cache_filter for s in text.split(",")],
        contexts=dict(_build_context(text) for text in options.build_context),
        tags=options.tag,
        labels=pairs_of(options.label, "--label"),
        annotations=tuple(options.annotation),
        platform=_platform(options.platform),
        network=options.network,
        add_hosts=[_host(text) for text in options.add_host],
        shm_size=_size(options.shm_size) if options.shm_size else None,
        ulimits=_ulimits(options.ulimit),
        pull=options.pull,
        paranoid=options.paranoid,
        max_unpacked_size=(
            MAX_UNPACKED_SIZE
            if options.max_unpacked_size is None
            else _size(options.max_unpacked_size)
        ),
        against=getattr(options, "against", None),
        selections=selections,
        strict=True,
    )


def _context(options: Namespace) -> str:
    """The context's directory; an invalid one is reported before anything else."""
    context: str = options.context
    if os.path.isdir(context):
        return context
    if context == "-":
        why = "a context can't come from standard input; only a Dockerfile can: -f - DIRECTORY"
    elif "://" in context or context.startswith("git@"):
        why = f"the context {context} is not a local directory: fetch it first"
    elif os.path.lexists(context):
        why = f"the context {context} is not a directory"
    else:
        why = f"there is no directory {context} to build from"
    raise UsageError(why)


def _build_context(text: str) -> tuple[str, str]:
    """The name and place of a further context; one that is not there is reported at once."""
    name, place = _pair(text, "--build-context")
    path: str = place
    for scheme in ("oci-layout://", "oci-archive://", "docker-archive://"):
        if place.startswith(scheme):
            from layercache.images.resolver import split_tag

            path = place.removeprefix(scheme).partition("@")[0]
            try:
                split_tag(path)
            except SourceError as error:
                raise UsageError(f"--build-context {text!r}: {error}") from None
            return name, place
    if place.startswith("docker-image://"):
        return name, place
    if not os.path.isdir(path):
        what = "is not a directory" if os.path.lexists(path) else "does not exist"
        raise UsageError(
            f"--build-context {text!r}: {path} {what}: give a directory, oci-layout://PATH or "
            "docker-image://NAME"
        )
    return name, place


def _platform(given: Sequence[str]) -> str | None:
    """The one platform of a build."""
    named = [part for text in given for part in text.split(",")]
    if len(named) > 1:
        raise UsageError(
            f"--platform {','.join(named)}: an image is built for one platform at a time: "
            "build once for each, under tags of their own"
        )
    return named[0] if named else None


def _ulimits(texts: Sequence[str]) -> Sequence[str]:
    if texts and sys.platform != "win32":
        from layercache.executors.rootfs.ulimits import parse_ulimits

        parse_ulimits(texts)  # a wrong one is refused before anything is built
    return texts


def pairs_of(texts: Sequence[str], option: str, *, bare: bool = False) -> dict[str, Any]:
    """The `NAME=VALUE` texts of an option; with `bare`, None stands for a value left out."""
    return dict(_pair(text, option, bare=bare) for text in texts)


def _pair(text: str, option: str, *, bare: bool = False) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not name or not (equals or bare):
        raise UsageError(f"{option} {text!r}: expected NAME=VALUE")
    return name, value if equals else None


def _host(text: str) -> tuple[str, str]:
    name, separator, address = text.partition("=" if "=" in text else ":")
    if not name or not separator or not address:
        raise UsageError(f"--add-host {text!r}: expected HOST:IP")
    return name, address.strip("[]")


def _size(text: str) -> int:
    from layercache.model.units import parse_size

    return parse_size(text)


def _fields(text: str, option: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        if not equals:
            raise UsageError(f"{option} {text!r}: expected KEY=VALUE, found {part!r}")
        name = name.strip().lower()
        if name in found:
            raise UsageError(f"{option} {text!r}: {name} is given twice")
        found[name] = value
    return found


def _secret(text: str) -> tuple[str, bytes]:
    fields = _fields(text, "--secret")
    name = fields.get("id")
    if not name:
        raise UsageError(f"--secret {text!r} needs id=NAME")
    unknown = sorted(fields.keys() - {"id", "src", "source", "env", "type"})
    if unknown:
        raise UsageError(
            f"--secret {text!r}: unknown {', '.join(unknown)} (expected id, src, source, env, type)"
        )
    if fields.get("type", "file") not in ("file", "env"):
        raise UsageError(f"--secret {text!r}: type is file or env")
    source = fields.get("src") or fields.get("source")
    if source is not None and fields.get("env"):
        raise UsageError(f"--secret {text!r}: give src or env, not both")
    if source is None and (fields.get("env") or fields.get("type") == "env"):
        variable = fields.get("env") or name
        value = os.environ.get(variable)
        if value is None:
            raise UsageError(f"--secret id={name}: the variable {variable} is not set")
        return name, os.fsencode(value)
    if source is None and name in os.environ:
        return name, os.fsencode(os.environ[name])
    try:
        with open(source or name, "rb") as content:
            return name, content.read()
    except OSError as error:
        raise UsageError(
            f"--secret id={name}: can't read {source or name}: {error.strerror}"
        ) from error


def _ssh(text: str) -> tuple[str, str]:
    name, _, path = text.partition("=")
    found = path or os.environ.get("SSH_AUTH_SOCK", "")
    if not found:
        raise UsageError(f"--ssh {text!r}: no agent is running: SSH_AUTH_SOCK is not set")
    if not os.path.exists(found):
        source = "" if path else " (from SSH_AUTH_SOCK)"
        raise UsageError(
            f"--ssh {text!r}: {found}{source} does not exist: give the socket of a running agent, "
            "or the file of a key"
        )
    return name or "default", found
