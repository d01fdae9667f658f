"""Every Dockerfile that real builders were observed with reads as they read it."""

from __future__ import annotations

from layercache.dockerfile._instruction import DockerfileInstruction
from layercache.dockerfile.instructions import From
from layercache.dockerfile.syntax.parser import parse, parse_trigger
from tests.dockerfile.scenarios import dockerfiles


def _placed(instructions: tuple[DockerfileInstruction, ...]) -> list[tuple[str, str, int, int]]:
    placed: list[tuple[str, str, int, int]] = []
    stage, index = -1, 0
    for instruction in instructions:
        if isinstance(instruction, From):
            stage, index = stage + 1, 0
        placed.append((instruction.op, instruction.text, stage, index))
        index += 1
    return placed


def test_the_steps_are_those_observed() -> None:
    """Name, text, stage and index of every step are the recorded ones, in every build."""
    count = 0
    for name, number, text, steps in dockerfiles():
        expected = [
            (step["op"], step["text"], step["stage"], step["index"])
            for step in steps
            if "onbuild" not in step
        ]

        assert _placed(parse(text).instructions) == expected, f"{name}, build {number}"
        count += len(expected)

    print(f"{count} steps agree")
    assert count > 1500


def test_recorded_triggers_are_instructions() -> None:
    """The text of each trigger that a base image fired can be read on its own."""
    fired = [step for *_, steps in dockerfiles() for step in steps if "onbuild" in step]

    assert fired
    for step in fired:
        trigger = parse_trigger(step["text"])
        assert (trigger.op, trigger.text) == (step["op"], step["text"])
