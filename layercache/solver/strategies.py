"""Key strategies: by content (`ContentKeys`, the default) and by chain (`ChainKeys`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from layercache._base.classes import frozen
from layercache.model.digests import Fingerprint
from layercache.model.graph import Input, Step
from layercache.model.keys import InputMaterial, KeyMaterial, Narrows
from layercache.model.operations import PARENT, CopyFiles, Exec, MakeDirectory
from layercache.model.selectors import BY_KEY, NOTHING, Selector

__all__ = ["ChainKeys", "ContentKeys"]

CONTENT_SCHEME: Final = "content/2"
CHAIN_SCHEME: Final = "chain/2"


def _material(
    scheme: str, salt: str, step: Step, selectors: Sequence[Selector], inputs: Sequence[Fingerprint]
) -> KeyMaterial:
    instruction = step.instruction
    commands = getattr(instruction, "commands", True)
    return KeyMaterial(
        scheme=scheme,
        name=instruction.name,
        fields=tuple(instruction.definition()),
        traits=step.traits if commands else (),
        inputs=tuple(
            [
                InputMaterial(edge.role, tuple(selector.definition()), fingerprint)
                for edge, selector, fingerprint in zip(step.inputs, selectors, inputs, strict=True)
            ]
        ),
        salt=salt,
    )


@frozen
class ContentKeys(Narrows):
    """A step's key is made of its definition and the content that it reads.

    The parent counts as a whole (its chain ID), except for COPY and ADD `--link`, which read
    nothing of it. If a step runs again and produces the same result as before, the steps that read
    it hit. If the whole parent differs, a step is also reused if the facts that it read are
    unchanged.
    """

    salt: str = ""
    scheme = CONTENT_SCHEME

    def selector(self, step: Step, source: Input) -> Selector:
        instruction = step.instruction
        if source.role == PARENT and isinstance(instruction, CopyFiles) and instruction.link:
            return NOTHING
        return source.selector

    def narrows(self, step: Step) -> str | None:
        """COPY, ADD and WORKDIR by the facts that they read; RUN by its observed reads."""
        instruction = step.instruction
        if isinstance(instruction, Exec):
            return None if step.trace == "off" else "trace"
        if isinstance(instruction, MakeDirectory):
            return "rebase"
        if isinstance(instruction, CopyFiles) and not instruction.link:
            return "rebase"
        return None

    def material(self, step: Step, inputs: Sequence[Fingerprint]) -> KeyMaterial:
        selectors = [self.selector(step, edge) for edge in step.inputs]
        return _material(self.scheme, self.salt, step, selectors, inputs)


@frozen
class ChainKeys:
    """Docker's classic rule: the parent counts by its *key*, not by its content.

    All keys are known before anything runs. For tools whose outputs can't be hashed. There is no
    early cutoff: if a step runs again, all steps after it run again.
    """

    salt: str = ""
    scheme = CHAIN_SCHEME

    def selector(self, step: Step, source: Input) -> Selector:
        return BY_KEY if source.role == PARENT else source.selector

    def material(self, step: Step, inputs: Sequence[Fingerprint]) -> KeyMaterial:
        selectors = [self.selector(step, edge) for edge in step.inputs]
        return _material(self.scheme, self.salt, step, selectors, inputs)
