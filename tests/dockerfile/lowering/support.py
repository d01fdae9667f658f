"""Lowering of text with base images at hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from layercache.dockerfile.lowering.lower import lower
from layercache.dockerfile.lowering.options import ImageNeed, Lowered, Needs, Options, ResolvedBase
from layercache.dockerfile.recipe import Dockerfile
from layercache.model.descriptors import LAYER_TAR, SCRATCH, Descriptor, Layer
from layercache.model.digests import DiffID, sha256
from layercache.model.graph import Step
from layercache.model.image_config import ImageConfig

__all__ = ["PATH", "base_image", "folded", "lowered", "needs", "step", "steps"]

PATH = ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")


def base_image(name: str, config: ImageConfig | None = None) -> ResolvedBase:
    """An image of one layer that is its name's own."""
    digest = sha256(name.encode())
    layer = Layer(Descriptor(LAYER_TAR, digest, 1), DiffID(str(digest)))
    plain = ImageConfig.scratch("amd64")
    return ResolvedBase(name, SCRATCH.plus(layer), config or plain)


def folded(
    text: str, configs: Mapping[str, ImageConfig] | None = None, **options: Any
) -> Lowered | Needs:
    """`text` lowered, with the images that `configs` names (`base` always)."""
    recipe = Dockerfile.parse(text)
    known = {"base": ImageConfig.scratch("amd64"), **(configs or {})}
    chosen = Options(escape=recipe.escape, **options)
    images: dict[ImageNeed, ResolvedBase] = {}
    for _ in range(20):
        found = lower(recipe.instructions, chosen, images)
        if isinstance(found, Lowered):
            return found
        wanted = {need: need.name for need in found.images if need.name in known}
        if not wanted:
            return found
        images.update({need: base_image(name, known[name]) for need, name in wanted.items()})
    raise AssertionError("lowering asks for images without end")


def lowered(text: str, configs: Mapping[str, ImageConfig] | None = None, **options: Any) -> Lowered:
    """As `folded`, with every image there."""
    found = folded(text, configs, **options)
    assert isinstance(found, Lowered), found
    return found


def needs(text: str, **options: Any) -> list[ImageNeed]:
    """The images that are still needed when only `base` is there."""
    found = folded(text, **options)
    assert isinstance(found, Needs), found
    return list(found.images)


def steps(text: str, **options: Any) -> list[Step]:
    """The steps that the target needs, in order."""
    found = lowered(text, **options)
    needed = found.graph.needed()
    return [
        vertex
        for number, vertex in enumerate(found.graph.vertices)
        if isinstance(vertex, Step) and number in needed
    ]


def step(text: str, **options: Any) -> Any:
    """The operation of the last step of `FROM base` with `text` after it."""
    return steps(f"FROM base\n{text}\n", **options)[-1].instruction
