"""Conformance suite for instruction types.

class TestMine(InstructionSuite):
    def instructions(self):
        return [Bundle(entry="main.js"), Bundle(entry="main.js", minify=True)]
"""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from layercache._base.classes import evolve
from layercache.model.framing import frame
from layercache.model.graph import Step
from layercache.model.instruction import Field, Instruction
from layercache.model.keys import cache_key
from layercache.solver.strategies import ContentKeys

__all__ = ["InstructionSuite"]

_CHILD = """
import pickle, sys
from layercache.testing.instructions import key_of
for instruction in pickle.load(sys.stdin.buffer):
    print(key_of(instruction))
"""


def key_of(instruction: Instruction) -> str:
    """The key of an instruction that reads nothing."""
    return cache_key(ContentKeys().material(Step(instruction), ()))


class InstructionSuite:
    """The contract of every instruction: a frozen value whose definition is complete.

    Override `instructions`; `cosmetic` names fields that change no result, `changed` gives other
    values for fields for which the suite can't think of one.
    """

    cosmetic: frozenset[str] = frozenset()

    def instructions(self) -> Sequence[Instruction]:
        """A few values, each with another effect."""
        raise TypeError("a suite says what it is about: override instructions(self)")

    def changed(self, instruction: Instruction) -> Mapping[str, Any]:
        """Field → another valid value of it."""
        return {}

    def test_it_is_an_instruction(self) -> None:
        """It has a name for people, and a definition made of fields with labels of their own."""
        for instruction in self.instructions():
            assert isinstance(instruction, Instruction)
            assert isinstance(instruction.name, str)
            assert instruction.name
            fields = list(instruction.definition())
            assert all(isinstance(field, Field) for field in fields)
            labels = [field.label for field in fields]
            assert len(set(labels)) == len(labels), f"a label is used twice: {labels}"

    def test_its_definition_can_be_hashed(self) -> None:
        """Values of fields are None, bool, int, str, bytes or tuples of these."""
        for instruction in self.instructions():
            for field in instruction.definition():
                frame((field.label, field.value))

    def test_its_definition_stays_the_same(self) -> None:
        """It is a function of the value: of no clock, counter, environment or copy."""
        for instruction in self.instructions():
            first = list(instruction.definition())

            assert first == list(instruction.definition())
            assert first == list(copy.deepcopy(instruction).definition())

    def test_its_key_is_the_same_in_every_process(self) -> None:
        """Pickled into processes with other hash seeds, all keys come out alike."""
        instructions = list(self.instructions())
        expected = [key_of(instruction) for instruction in instructions]
        for seed in ("1", "2"):
            environment = {
                **os.environ,
                "PYTHONHASHSEED": seed,
                "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            }
            done = subprocess.run(
                [sys.executable, "-c", _CHILD],
                input=pickle.dumps(instructions),
                env=environment,
                stdout=subprocess.PIPE,
                check=True,
            )

            assert done.stdout.decode().split() == expected

    def test_it_is_a_frozen_value(self) -> None:
        """Equal copies are equal and hash alike; nothing can be assigned."""
        for instruction in self.instructions():
            twin = pickle.loads(pickle.dumps(instruction))

            assert twin == instruction
            assert hash(twin) == hash(instruction)
            for name in [*_fields(instruction), "name"]:
                try:
                    setattr(instruction, name, None)
                except (AttributeError, TypeError):
                    continue
                raise AssertionError(f"{name} of {instruction!r} can be assigned")

    def test_different_ones_have_different_keys(self) -> None:
        """No two of the given values share a key."""
        keys: dict[str, Instruction] = {}
        for instruction in self.instructions():
            other = keys.setdefault(key_of(instruction), instruction)
            assert other is instruction, f"{instruction!r} has the key of {other!r}"

    def test_every_field_counts(self) -> None:
        """Another value of any field gives another key, unless the field is cosmetic."""
        for instruction in self.instructions():
            given = self.changed(instruction)
            for name in _fields(instruction):
                value = given[name] if name in given else _another(getattr(instruction, name))
                changed = evolve(instruction, **{name: value})  # type: ignore[misc]
                same = key_of(changed) == key_of(instruction)
                if name in self.cosmetic:
                    assert same, f"the field {name} is said to be cosmetic, but changes the key"
                else:
                    assert not same, f"the field {name} is not in the definition"


def _fields(instruction: Instruction) -> list[str]:
    kind: Any = type(instruction)
    return [field.name for field in attrs.fields(kind) if field.init] if attrs.has(kind) else []


def _another(value: Any) -> Any:
    """A different value of the same type."""
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case str():
            return value + "x"
        case bytes():
            return value + b"x"
        case tuple():
            return (*value, _another(value[-1]) if value else "x")
        case frozenset():
            return value | {"x"}
        case None:
            return "x"
    raise TypeError(f"override changed(): the suite knows no other value for {value!r}")
