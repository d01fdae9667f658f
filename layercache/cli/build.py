"""The commands that take a recipe: build, plan, explain, advise, probe."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from layercache.builder import Builder, Request, project_of
from layercache.bypass import any_of, step_selector
from layercache.cli import of_the_system, status_of
from layercache.cli.display import JsonLines, Plain, summary
from layercache.errors import Cancelled, LayerCacheError, MissingExtra, UsageError
from layercache.graph import Origin
from layercache.recipe import Dockerfile
from layercache.report import ErrorReport, Report
from layercache.result import BuildResult

__all__ = ["run_advise", "run_build", "run_explain", "run_plan", "run_probe"]


def run_build(options: Namespace) -> int:
    """`layercache build`."""
    return _run(options, execute=True, show=summary)


def run_plan(options: Namespace) -> int:
    """`layercache plan`."""
    return _run(options, execute=False, show=summary)


def run_explain(options: Namespace) -> int:
    """`layercache explain`."""
    from layercache.result import explain_step

    def show(report: Report) -> str:
        return "\n".join(
            explain_step(step, report.steps) for step in report.steps if step.decision is not None
        )

    return _run(options, execute=False, show=show, print_shown=True)


def run_advise(options: Namespace) -> int:
    """`layercache advise`."""
    from layercache.cli.advising import advise

    return advise(options)


def run_probe(options: Namespace) -> int:
    """`layercache probe`."""
    from layercache.cli.probing import probe

    return probe(options)


def _run(
    options: Namespace,
    *,
    execute: bool,
    show: Callable[[Report], str],
    print_shown: bool = False,
) -> int:
    result: BuildResult | None = None
    status = 0
    try:
        result, exported = perform(options, execute=execute)
        report = result.report
    except KeyboardInterrupt:
        if options.json:
            print_json(_bare_failure(Cancelled("interrupted")).to_dict())
        raise
    except (LayerCacheError, OSError) as raised:
        error = raised if isinstance(raised, LayerCacheError) else of_the_system(raised)
        found = error.report
        report = found if isinstance(found, Report) else _bare_failure(error)
        status = status_of(error)
        print(f"layercache: {error}", file=sys.stderr)
        if options.json:
            print_json(report.to_dict())
        elif report.steps and not options.quiet:
            print(show(report), file=sys.stderr)
        return status
    if options.json:
        print_json(report.to_dict())
    elif options.quiet:
        print(report.image.config_digest if report.image else "")
    else:
        print(show(report), file=sys.stdout if print_shown or not execute else sys.stderr)
        if execute and not options.tag and not exported:
            print(
                "the result stays in the cache: name it with -t, or write it with --output",
                file=sys.stderr,
            )
    return status


def _bare_failure(error: LayerCacheError) -> Report:
    return Report(ok=False, error=ErrorReport(error.code, str(error), error.line))


def print_json(value: Mapping[str, Any]) -> None:
    """One JSON object on standard output."""
    import json

    json.dump(value, sys.stdout, ensure_ascii=True)
    sys.stdout.write("\n")


def perform(options: Namespace, *, execute: bool) -> tuple[BuildResult, bool]:
    """Build or plan what the options say; whether something was exported."""
    outputs = _outputs(options)
    builder, request = prepare(options)
    try:
        result = builder.run(request, execute=execute)
        if execute:
            for spec in outputs:
                result = result.export(spec)
            _write_files(options, result)
        for path in options.report:
            _write(path, rendered(result, path))
        if options.show_output:
            _show_outputs(result)
    finally:
        builder.close()
        builder.store.close()
    return result, bool(outputs)


def prepare(options: Namespace) -> tuple[Builder, Request]:
    """The builder and the request that the options describe."""
    from layercache.locations import default_cache, open_store

    store = open_store(
        options.cache or default_cache(),
        durability=options.durability,
        salt=options.salt,
        cache_from=options.cache_from,
        cache_to=options.cache_to,
    )
    request = _request(options)
    observers: list[Any] = []
    if options.progress == "json":
        observers.append(JsonLines())
    elif not options.quiet and (options.progress == "plain" or not options.json):
        observers.append(_terminal() if options.progress == "auto" else Plain())
    if options.otel:
        from layercache.sinks.otel import OtelSpans

        observers.append(OtelSpans())
    secrets = dict(map(_secret, options.secret))
    executor: Any = None
    if options.executor == "workspace":
        from layercache.executors.auto import scratch_directory
        from layercache.executors.workspace import Workspace
        from layercache.predecessors import trail_id

        # One place for each context, whatever the Dockerfile and the target: the place counts.
        project = project_of(attrs.evolve(request, recipe=(), target=None))
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
        },
    )
    return builder, request


def _terminal() -> Any:
    """The live display where there is a terminal and the extra for it, else plain lines."""
    if sys.stderr.isatty():
        from layercache.sinks.live import Live

        try:
            return Live()
        except MissingExtra:
            pass  # the plain display says the same
    return Plain()


def _request(options: Namespace) -> Request:
    context = options.context
    stdin = options.file == "-"
    if stdin:
        recipe = Dockerfile.parse(sys.stdin.buffer.read(), "standard input")
    else:
        recipe = Dockerfile.load(options.file or os.path.join(context, "Dockerfile"))
    for warning in recipe.warnings:
        if not options.json:
            print(f"layercache: warning: {warning}", file=sys.stderr)
    no_cache: bool | Callable[[Origin], bool] = options.no_cache
    if options.no_cache_step and not options.no_cache:
        no_cache = any_of([step_selector(text) for text in options.no_cache_step])
    return Request(
        recipe=recipe,
        context=context,
        args=dict(_pair(text, "--build-arg", bare=True) for text in options.build_arg),
        target=options.target,
        no_cache=no_cache,
        no_cache_filter=[s.strip() for text in options.no_cache_filter for s in text.split(",")],
        contexts=dict(_pair(text, "--build-context") for text in options.build_context),
        tags=options.tag,
        labels=dict(_pair(text, "--label") for text in options.label),
        annotations=tuple(options.annotation),
        platform=options.platform,
        network=options.network,
        add_hosts=[_host(text) for text in options.add_host],
        shm_size=_size(options.shm_size) if options.shm_size else None,
        ulimits=options.ulimit,
        pull=options.pull,
        against=getattr(options, "against", None),
    )


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
    from layercache.dockerfile.numbers import parse_size

    return parse_size(text)


def _fields(text: str, option: str) -> dict[str, str]:
    found = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        if not equals:
            raise UsageError(f"{option} {text!r}: expected KEY=VALUE, found {part!r}")
        found[name.strip().lower()] = value
    return found


def _secret(text: str) -> tuple[str, bytes]:
    fields = _fields(text, "--secret")
    name = fields.get("id")
    if not name:
        raise UsageError(f"--secret {text!r} needs id=NAME")
    source = fields.get("src") or fields.get("source")
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
        raise UsageError(f"--secret id={name}: can't read {source}: {error.strerror}") from error


def _ssh(text: str) -> tuple[str, str]:
    name, _, path = text.partition("=")
    found = path or os.environ.get("SSH_AUTH_SOCK", "")
    if not found:
        raise UsageError(f"--ssh {text!r}: no agent is running: SSH_AUTH_SOCK is not set")
    return name or "default", found


def _outputs(options: Namespace) -> list[Any]:
    if not (options.output or options.load or options.push):
        return []
    from layercache.images.outputs import parse_output

    texts = list(options.output)
    if options.load:
        texts.append("type=docker")
    if options.push:
        texts.append("type=registry")
    if options.push and not options.tag:
        raise UsageError("--push needs a name: give one with -t")
    return [parse_output(text) for text in texts]


def _write_files(options: Namespace, result: BuildResult) -> None:
    image = result.report.image
    if image is None:
        return
    if options.iidfile:
        _write(options.iidfile, str(image.config_digest))
    if options.metadata_file:
        import json

        value = {
            "containerimage.config.digest": image.config_digest,
            "containerimage.digest": image.manifest_digest,
            "image.name": ",".join(options.tag),
        }
        _write(options.metadata_file, json.dumps(value, indent=2) + "\n")


def rendered(result: BuildResult, path: str) -> str:
    """The report in the form that the ending of `path` asks for; raises `UsageError`."""
    from layercache.rendering.chrome import chrome_trace
    from layercache.rendering.markdown import markdown_summary

    ending = os.path.splitext(path)[1]
    match ending:
        case ".html":
            return result.to_html()
        case ".json":
            import json

            return json.dumps(result.to_dict(), indent=2) + "\n"
        case ".md":
            return markdown_summary(result.report)
        case ".mmd":
            return result.to_mermaid()
        case ".dot":
            return result.to_dot()
        case ".trace":
            return chrome_trace(result.report)
    raise UsageError(
        f"--report {path}: expected a name that ends in .html, .json, .md, .mmd, .dot or .trace"
    )


def _show_outputs(result: BuildResult) -> None:
    """What the reused steps wrote when they were executed."""
    for step in result.steps:
        if step.decision == "hit" and (output := result.log(step)):
            print(f"[{step.stage}.{step.index}] {step.text} (reused)", file=sys.stderr)
            text = output.decode("utf-8", "replace").rstrip("\n")
            print("\n".join("    " + line for line in text.split("\n")), file=sys.stderr)


def _write(path: str, text: str) -> None:
    try:
        with open(path, "w", encoding="utf-8") as out:
            out.write(text)
    except OSError as error:
        raise UsageError(f"can't write {path}: {error.strerror}") from error
