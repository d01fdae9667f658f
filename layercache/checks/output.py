"""The result of a check as text, as the JSON of `docker buildx build --check`, and as SARIF."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from layercache.checks.check import CheckResult
from layercache.checks.rule import CheckRule, Violation

__all__ = ["as_json", "as_sarif", "as_text"]

_SCHEMA: Final = "https://json.schemastore.org/sarif-2.1.0.json"


def as_text(checked: CheckResult) -> str:
    """One paragraph for each violation, and a last line with their number."""
    count = len(checked.violations)
    if not count:
        return f"{checked.name}: no violations"
    total = "1 violation" if count == 1 else f"{count} violations"
    return "\n".join([*(str(each) for each in checked.violations), f"{checked.name}: {total}"])


def as_json(checked: Sequence[CheckResult]) -> dict[str, object]:
    """The object that buildx prints, with layercache's severity and suggestion beside it."""
    return {
        "warnings": [
            {
                "ruleName": each.rule.name,
                "description": each.rule.summary,
                "url": each.rule.page,
                "severity": each.rule.severity,
                "detail": each.problem.message,
                "expected": each.problem.expected,
                "suggestion": each.problem.suggestion,
                "location": {"sourceIndex": number, "ranges": [_range(each)]},
            }
            for number, result in enumerate(checked)
            for each in result.violations
        ],
        "sources": [{"filename": each.name, "language": "Dockerfile"} for each in checked],
    }


def _range(violation: Violation) -> dict[str, object]:
    return {
        "start": {"line": violation.problem.line, "character": violation.problem.column - 1},
        "end": {"line": violation.end_line},
    }


def as_sarif(checked: Sequence[CheckResult], version: str) -> dict[str, object]:
    """A SARIF 2.1.0 log of one run; `version` is layercache's."""
    violations = [each for result in checked for each in result.violations]
    rules: dict[str, CheckRule] = {each.rule.name: each.rule for each in violations}
    names = list(rules)
    return {
        "$schema": _SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "layercache",
                        "version": version,
                        "rules": [
                            {
                                "id": rule.name,
                                "shortDescription": {"text": rule.summary},
                                "helpUri": rule.page,
                                "defaultConfiguration": {"level": rule.severity},
                            }
                            for rule in rules.values()
                        ],
                    }
                },
                "results": [
                    {
                        "ruleId": each.rule.name,
                        "ruleIndex": names.index(each.rule.name),
                        "level": each.rule.severity,
                        "message": {"text": _message(each)},
                        "locations": [
                            {
                                "physicalLocation": {
                                    "artifactLocation": {"uri": each.problem.name},
                                    "region": {
                                        "startLine": each.problem.line,
                                        "startColumn": each.problem.column,
                                        "endLine": max(each.end_line, each.problem.line),
                                    },
                                }
                            }
                        ],
                    }
                    for each in violations
                ],
            }
        ],
    }


def _message(violation: Violation) -> str:
    problem = violation.problem
    more = f"; expected: {problem.expected}" if problem.expected else ""
    guess = f"; did you mean {problem.suggestion}?" if problem.suggestion else ""
    return f"{problem.message}{more}{guess}"
