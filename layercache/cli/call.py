"""`layercache check` and `build --call`: what a Dockerfile is, without building it."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterable, Sequence

from layercache._os.small_files import read_file
from layercache.builds.request import arguments_of
from layercache.checks import RULES, CheckResult, check_dockerfile, outline_of, targets_of
from layercache.checks.options import CheckOptions
from layercache.checks.outline import Outline, OutlineNeed, Target
from layercache.checks.output import as_json, as_sarif, as_text
from layercache.cli.request import pairs_of, print_json, recipe_of
from layercache.cli.status import FAILED, status_of
from layercache.errors import DockerfileError, UsageError
from layercache.inputs.context import ignore_rules
from layercache.reports.visible import visible

__all__ = ["run_call", "run_check"]

_FORMATS = {
    "check": ("text", "json", "sarif"),
    "outline": ("text", "json"),
    "targets": ("text", "json"),
}


def run_call(options: Namespace) -> int:
    """Print what `--call` asks for; 1 if a check found a violation, as buildx has it."""
    method, form = _method(options)
    context, recipe = recipe_of(options)
    text = recipe.text or ""
    args = arguments_of(pairs_of(options.build_arg, "--build-arg", bare=True))
    if method == "targets":
        targets = targets_of(text, recipe.name)
        _print(_targets_json(targets) if form == "json" else _targets_text(targets))
        return 0
    if method == "outline":
        outline = outline_of(text, recipe.name, target=options.target, build_args=args)
        _print(_outline_json(outline) if form == "json" else _outline_text(outline))
        return 0
    ignore = ignore_rules(context, recipe.path)
    checked = check_dockerfile(text, recipe.name, build_args=args, ignore=ignore)
    return _show_checked([checked], form)


def run_check(options: Namespace) -> int:
    """`layercache check`: the checks of files alone.

    1 if one has a violation; 2 if one can't be built at all, which is said on standard error
    beside the results of the others.
    """
    names = [rule.name for rule in RULES]
    chosen = CheckOptions.parse(f"skip={options.skip};experimental={options.experimental}", names)
    checked = []
    status = 0
    for file in options.files:
        if file == "-":
            name, text = "standard input", sys.stdin.buffer.read()
        else:
            try:
                name, text = file, read_file(file)
            except OSError as error:
                raise UsageError(f"can't read {file}: {error.strerror}") from error
        try:
            checked.append(check_dockerfile(text, name, options=chosen))
        except DockerfileError as error:
            print(f"layercache: {visible(str(error))}", file=sys.stderr)
            status = status_of(error)
    return max(status, _show_checked(checked, options.format))


def _show_checked(checked: Sequence[CheckResult], form: str) -> int:
    if form == "json":
        print_json(as_json(checked))
    elif form == "sarif":
        from layercache._version import __version__

        print_json(as_sarif(checked, __version__))
    else:
        _print("\n".join(map(as_text, checked)))
    return FAILED if any(each.violations for each in checked) else 0


def _method(options: Namespace) -> tuple[str, str]:
    method, *settings = options.call.split(",")
    if method not in _FORMATS:
        raise UsageError(
            f"--call {options.call!r}: the methods are build, check, outline and targets"
        )
    form = "json" if options.json else "text"
    for setting in settings:
        key, _, value = setting.partition("=")
        if key != "format" or value not in _FORMATS[method]:
            allowed = "|".join(_FORMATS[method])
            raise UsageError(f"--call {options.call!r}: {method} takes format={allowed} only")
        form = value
    return method, form


def _print(shown: str | dict[str, object]) -> None:
    if isinstance(shown, str):
        print(visible(shown))
    else:
        print_json(shown)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "   ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _targets_text(targets: Sequence[Target]) -> str:
    rows = []
    for number, target in enumerate(targets):
        name = target.name or (str(number) if not target.default else "")
        rows.append((f"{name} (default)".strip() if target.default else name, target.description))
    return _table(("TARGET", "DESCRIPTION"), rows)


def _targets_json(targets: Sequence[Target]) -> dict[str, object]:
    return {
        "targets": [
            {
                "name": target.name,
                "default": target.default,
                "description": target.description,
                "base": target.base,
                "platform": target.platform,
                "line": target.line,
            }
            for target in targets
        ]
    }


def _outline_text(outline: Outline) -> str:
    parts = [f"TARGET:        {outline.target or '(default)'}"]
    if outline.description:
        parts[0] += f"\nDESCRIPTION:   {outline.description}"
    if outline.arguments:
        rows = [(each.name, each.value, each.description) for each in outline.arguments]
        parts.append(_table(("BUILD ARG", "VALUE", "DESCRIPTION"), rows))
    for title, needs in (("SECRET", outline.secrets), ("SSH", outline.ssh)):
        if needs:
            marked = [(each.name, "true" if each.required else "") for each in needs]
            parts.append(_table((title, "REQUIRED"), marked))
    return "\n\n".join(parts)


def _outline_json(outline: Outline) -> dict[str, object]:
    def needs(found: Iterable[OutlineNeed]) -> list[dict[str, object]]:
        return [{"name": each.name, "required": each.required, "line": each.line} for each in found]

    return {
        "name": outline.target,
        "description": outline.description,
        "args": [
            {
                "name": each.name,
                "value": each.value,
                "description": each.description,
                "line": each.line,
            }
            for each in outline.arguments
        ],
        "secrets": needs(outline.secrets),
        "ssh": needs(outline.ssh),
    }
