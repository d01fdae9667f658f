"""The commands that take a recipe: build, plan, explain, advise, probe."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Callable
from typing import Any

from layercache._base.classes import evolve
from layercache.builds.result import BuildResult
from layercache.cli.request import prepare, print_json
from layercache.errors import Cancelled, LayerCacheError, SourceError, UsageError
from layercache.reports.report import ErrorReport, Report

__all__ = ["run_advise", "run_build", "run_explain", "run_plan", "run_probe"]


def run_build(options: Namespace) -> int:
    """`layercache build`."""
    if options.call is not None and options.call.split(",", 1)[0] != "build":
        from layercache.cli.call import run_call

        return run_call(options)
    return _run(options, execute=True, show=_summary)


def run_plan(options: Namespace) -> int:
    """`layercache plan`."""
    return _run(options, execute=False, show=_plan_summary)


def run_explain(options: Namespace) -> int:
    """`layercache explain`."""
    from layercache.reports.step_text import explain_step
    from layercache.reports.visible import visible

    def show(report: Report) -> str:
        steps = [step for step in report.steps if step.decision is not None]
        return visible("\n".join(explain_step(step, report.steps) for step in steps))

    return _run(options, execute=False, show=show, print_shown=True)


def run_advise(options: Namespace) -> int:
    """`layercache advise`."""
    from layercache.cli.advise import advise

    return advise(options)


def run_probe(options: Namespace) -> int:
    """`layercache probe`."""
    from layercache.cli.probe import probe

    return probe(options)


def _run(
    options: Namespace,
    *,
    execute: bool,
    show: Callable[[Report], str],
    print_shown: bool = False,
) -> int:
    from layercache.reports.visible import visible

    result: BuildResult | None = None
    status = 0
    try:
        result, exported = perform(options, execute=execute)
        report = result.report
    except KeyboardInterrupt as interrupt:
        if options.json:
            print_json(_interrupted(interrupt).to_dict())
        raise
    except (LayerCacheError, OSError) as raised:
        from layercache.cli.status import of_the_system, status_of, with_line

        error = raised if isinstance(raised, LayerCacheError) else of_the_system(raised)
        found = error.report
        report = found if isinstance(found, Report) else bare_failure(error)
        status = status_of(error)
        said = with_line(error, _dockerfile_name(options))
        print(f"layercache: {visible(said)}", file=sys.stderr)
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


def _dockerfile_name(options: Namespace) -> str:
    """The name that `DockerfileError` gives the Dockerfile, too."""
    if options.file == "-":
        return "standard input"
    return os.path.basename(options.file) if options.file else "Dockerfile"


def _interrupted(interrupt: KeyboardInterrupt) -> Report:
    """The report of an interrupted build, with the steps so far, if there were any."""
    cause = interrupt.__cause__
    found = cause.report if isinstance(cause, Cancelled) else None
    return found if isinstance(found, Report) else bare_failure(Cancelled("interrupted"))


def _summary(report: Report) -> str:
    from layercache.cli.summary import summary  # a quiet build shows none

    return summary(report)


def _plan_summary(report: Report) -> str:
    from layercache.cli.summary import plan_summary

    return plan_summary(report)


def bare_failure(error: LayerCacheError) -> Report:
    return Report(ok=False, error=ErrorReport(error.code, str(error), error.line))


def perform(options: Namespace, *, execute: bool) -> tuple[BuildResult, bool]:
    """Build or plan as the options request; returns whether something was exported."""
    from layercache.reports.visible import visible

    outputs = _outputs(options)
    builder, request = prepare(options)
    files = [spec.dest for spec in outputs if spec.dest not in (None, "-")]
    files += [path for path in (options.iidfile, options.metadata_file, *options.report) if path]
    request = evolve(request, outputs=files)
    try:
        if execute:
            _remove_files(options)
        result = builder.run(request, execute=execute)
        if execute:
            if outputs:
                from layercache.builds.exporting import export
            pushed = None
            for spec in outputs:
                result = export(result, spec)
                if spec.type == "registry":
                    pushed = result
            if pushed is not None:
                # Outputs may differ in compression, and so in digest: others pull the registry's.
                result = evolve(
                    result,
                    manifest=pushed.manifest,
                    report=evolve(result.report, image=pushed.report.image),
                )
            named = options.iidfile or options.metadata_file
            if named or (options.quiet and not options.json):
                from layercache.builds.exporting import seal

                result = seal(result)  # what names the image is made of its archives' digests
            for note in result.notes:
                print(f"note: {visible(note)}", file=sys.stderr)
            _write_files(options, result)
        for path in options.report:
            _write(path, rendered(result, path))
        if options.show_output:
            _show_outputs(result, options.raw_output)
    finally:
        builder.close()
        builder.store.close()
    return result, bool(outputs)


def _outputs(options: Namespace) -> list[Any]:
    if not (options.output or options.load or options.push):
        return []
    from layercache.images.output_spec import parse_output

    texts = list(options.output)
    if options.load:
        texts.append("type=docker")
    if options.push:
        texts.append("type=registry")
    if options.push and not options.tag:
        raise UsageError("--push needs a name: give one with -t")
    return [parse_output(text) for text in texts]


def _remove_files(options: Namespace) -> None:
    """A build that fails leaves no digests of the one before."""
    for path in (options.iidfile, options.metadata_file):
        if path and os.path.isfile(path):
            try:
                os.unlink(path)
            except OSError as error:
                raise SourceError(f"can't write {path}: {error.strerror}") from error


def _write_files(options: Namespace, result: BuildResult) -> None:
    image = result.report.image
    if image is None:
        return
    if options.iidfile:
        _write(options.iidfile, str(image.config_digest))
    if options.metadata_file:
        import json

        from layercache.oci.encoding import descriptor_to_json

        named = map(str, result.built.references()) if result.built is not None else ()
        value: dict[str, object] = {
            "containerimage.config.digest": image.config_digest,
            "containerimage.digest": image.manifest_digest,
            "image.name": ",".join(dict.fromkeys((*named, *result.names))),
        }
        if result.manifest is not None:
            value["containerimage.descriptor"] = descriptor_to_json(result.manifest)
        _write(options.metadata_file, json.dumps(value, indent=2) + "\n")


def rendered(result: BuildResult, path: str) -> str:
    """The report in the form given by the extension of `path`; raises `UsageError`."""
    from layercache.reports.chrome_trace import chrome_trace
    from layercache.reports.markdown import markdown_summary

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


def _show_outputs(result: BuildResult, raw: bool) -> None:
    """Show the recorded output of reused steps."""
    from layercache.reports.visible import visible, without_sequences

    for step in result.steps:
        if step.decision == "hit" and (output := result.log(step)):
            title = f"[{step.stage}.{step.index}] {step.text} (reused)"
            print(visible(title), file=sys.stderr)
            text = output.decode("utf-8", "replace").rstrip("\n")
            text = text if raw else without_sequences(text)
            print("\n".join("    " + line for line in text.split("\n")), file=sys.stderr)


def _write(path: str, text: str) -> None:
    try:
        with open(path, "w", encoding="utf-8") as out:
            out.write(text)
    except OSError as error:
        raise UsageError(f"can't write {path}: {error.strerror}") from error
