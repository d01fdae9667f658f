"""Check one Dockerfile. Pure: the text and what is known about its surroundings are passed in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from layercache._base.classes import evolve, frozen
from layercache.checks.caching import check_caching
from layercache.checks.options import CheckOptions
from layercache.checks.rule import Violation
from layercache.checks.ruleset import RULES
from layercache.checks.style import check_style
from layercache.checks.subject import Remark, Subject
from layercache.checks.variables import check_variables
from layercache.dockerfile._instruction import DockerfileInstruction
from layercache.dockerfile.lowering.stage_graph import split_stages
from layercache.dockerfile.syntax.faults import Fault, Faults
from layercache.dockerfile.syntax.limits import Budget, RecipeLimits
from layercache.dockerfile.syntax.parser import parse
from layercache.errors import DockerfileError, UsageError
from layercache.trees.patterns import Ignore

__all__ = ["CheckResult", "check_dockerfile", "refuse_violations", "subject_of"]


@frozen
class CheckResult:
    """The violations of one Dockerfile in the order of its lines.

    `error` tells whether the file or the caller wants a build to end at a violation.
    """

    name: str
    violations: tuple[Violation, ...]
    error: bool = False


def check_dockerfile(
    text: str | bytes,
    name: str = "Dockerfile",
    *,
    options: CheckOptions | None = None,
    build_args: Mapping[str, str] | None = None,
    ignore: Ignore | None = None,
    environment: Callable[[str], Mapping[str, str] | None] | None = None,
) -> CheckResult:
    """Apply all rules to the Dockerfile `text`; `name` is the file's name in messages.

    `options` add to those of the file (`# check=…` at its top, or above an instruction for that
    instruction alone). `ignore` are the rules of `.dockerignore`. `environment` gives the
    variables of a base image by its reference, None where they are not known: there, only a
    variable that looks like a misspelt one is reported as undefined.

    Raises `DockerfileError` for a file that can't be built, and for a wrong `# check=`.
    """
    subject = subject_of(text, name, build_args=build_args, ignore=ignore, environment=environment)
    faults = Faults(name, subject.lines, RecipeLimits())
    names = [rule.name for rule in RULES]
    chosen = options or CheckOptions()
    directive = subject.parsed.directives.check
    if directive is not None:
        try:
            chosen |= CheckOptions.parse(directive, names)
        except UsageError as error:
            faults.add(Fault(str(error), "check"), _directive_line(subject.lines))
            faults.finish()
    own = _per_instruction(subject, names, faults)
    found: list[Violation] = []

    def report(note: Remark) -> None:
        here = chosen | own[note.at.line] if note.at.line in own else chosen
        if not here.applies(note.rule):
            return
        fault = Fault(note.message, note.word, expected=note.expected, suggestion=note.suggestion)
        problem = faults.problem(fault, note.at.line, note.at.end_line)
        found.append(Violation(note.rule, problem, note.at.end_line))

    for rules in (check_style, check_variables, check_caching):
        rules(subject, report)
    found.sort(key=lambda violation: violation.problem.line)
    return CheckResult(name, tuple(found), chosen.error)


def refuse_violations(
    text: str | bytes,
    name: str,
    *,
    build_args: Mapping[str, str],
    ignore: Ignore | None = None,
) -> None:
    """Raise `DockerfileError` if the file says `# check=error=true` and violates a rule."""
    checked = check_dockerfile(text, name, build_args=build_args, ignore=ignore)
    if not checked.error or not checked.violations:
        return
    raise DockerfileError(
        [
            evolve(each.problem, message=f"{each.problem.message} [{each.rule.name}]")
            for each in checked.violations
        ]
    )


def subject_of(
    text: str | bytes,
    name: str,
    *,
    build_args: Mapping[str, str] | None = None,
    ignore: Ignore | None = None,
    environment: Callable[[str], Mapping[str, str] | None] | None = None,
) -> Subject:
    """A Dockerfile as the rules look at it. Raises `DockerfileError` for a malformed file."""
    parsed = parse(text, name)
    whole = text.decode("utf-8", "surrogateescape") if isinstance(text, bytes) else text
    preamble, stages = split_stages(parsed.instructions)
    return Subject(
        parsed=parsed,
        lines=whole.removeprefix("\ufeff").split("\n"),
        preamble=tuple(preamble),
        stages=stages,
        arguments=build_args or {},
        ignore=ignore,
        environment=environment or (lambda _: None),
        budget=Budget(),
    )


def _directive_line(lines: Sequence[str]) -> int:
    return next(
        (n for n, line in enumerate(lines, 1) if line.replace(" ", "").startswith("#check=")), 1
    )


def _per_instruction(subject: Subject, names: list[str], faults: Faults) -> dict[int, CheckOptions]:
    """Options from comments directly above instructions, by the instruction's first line."""
    found: dict[int, CheckOptions] = {}
    for instruction in subject.instructions:
        first = instruction is subject.instructions[0]
        for comment in _directives(subject, instruction):
            if first and comment == subject.parsed.directives.check:
                continue  # the file's own
            at = instruction.location
            assert at is not None
            try:
                options = CheckOptions.parse(comment, names)
            except UsageError as error:
                faults.add(Fault(str(error), "check"), max(1, at.line - 1))
                continue
            found[at.line] = found.get(at.line, CheckOptions()) | options
    faults.finish()
    return found


def _directives(subject: Subject, instruction: DockerfileInstruction) -> list[str]:
    """The values of `# check=` in the comments above an instruction."""
    found = []
    for comment in subject.comments_above(instruction):
        key, equals, value = comment.partition("=")
        if equals and key.strip().lower() == "check":
            found.append(value.strip())
    return found
