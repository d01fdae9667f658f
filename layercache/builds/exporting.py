"""Writing the image of a result to files and registries, and naming it in the cache."""

from __future__ import annotations

import os

from layercache._base.classes import evolve
from layercache.builds.result import BuildResult
from layercache.errors import CacheError, UsageError
from layercache.images.built import source_date
from layercache.images.export import export as export_image
from layercache.images.output_spec import OutputSpec, parse_output
from layercache.images.tags import tag_image
from layercache.model.descriptors import State

__all__ = ["export", "tag"]


def export(result: BuildResult, spec: OutputSpec | str) -> BuildResult:
    """Write the image of a build as `spec` says (`type=oci,dest=PATH` and so on).

    Returns the result with the digests of what was written. A layer whose bytes turn out to be
    gone or damaged is made again, once. Raises `UsageError` for what can't be written,
    `SourceError` when reading or writing fails.
    """
    wanted = parse_output(spec) if isinstance(spec, str) else spec
    try:
        return _export(result, wanted)
    except CacheError:
        for layer in result.state.layers if result.state is not None else ():
            result.content.store.blobs.intact(layer.descriptor)
        return _export(result.content.again(), wanted)


def _export(result: BuildResult, wanted: OutputSpec) -> BuildResult:
    if result.built is None:
        raise UsageError("a plan has no result to write")
    if wanted.type in {"oci", "docker", "registry"} and _base_by_name(result.state):
        raise UsageError(
            f"--output type={wanted.type}: this executor does not read the files of the "
            "base image, so no complete image can be written: begin with FROM scratch, "
            "or use --executor rootfs"
        )
    epoch = result.built.epoch
    if epoch is None:
        epoch = source_date(os.environ.get("SOURCE_DATE_EPOCH"))
    exported = export_image(
        result.built,
        wanted,
        content=result.content.store.blobs,
        fetch=result.content.fetch,
        tree=result.tree,
        epoch=epoch,
        registry=None,
    )
    if exported.notes:
        return evolve(result, notes=(*result.notes, *exported.notes))
    if exported.config_digest is None or result.image is None:
        return result
    image = evolve(
        result.image,
        config_digest=exported.config_digest,
        manifest_digest=exported.manifest_digest,
    )
    names = tuple(dict.fromkeys((*result.names, *exported.names)))
    report = evolve(result.report, image=image)
    return evolve(result, report=report, manifest=exported.manifest, names=names)


def tag(result: BuildResult) -> None:
    """Keep the image under its names in the cache: a later FROM finds it there."""
    if result.built is not None:
        tag_image(result.content.store, result.built, result.content.fetch)


def _base_by_name(state: State | None) -> bool:
    """Whether the lowest state is a name without layers (workspace executor)."""
    while state is not None and state.layer is not None:
        state = state.parent
    return state is not None and bool(state.chain_id)
