"""Writing the image of a result to files and registries, and naming it in the cache."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

from layercache._base.classes import evolve
from layercache.builds.reporter import image_report
from layercache.builds.result import BuildResult
from layercache.errors import CacheError, UsageError
from layercache.images.built import source_date
from layercache.images.export import export as export_image
from layercache.images.output_spec import OutputSpec, parse_output
from layercache.images.tags import tag_image
from layercache.model.descriptors import State

__all__ = ["export", "seal", "tag"]


def export(result: BuildResult, spec: OutputSpec | str) -> BuildResult:
    """Write the image of a build as `spec` says (`type=oci,dest=PATH` and so on).

    Returns the result with the digests of what was written. A layer whose bytes turn out to be
    gone or damaged is made again, once. Raises `UsageError` for what can't be written,
    `SourceError` when reading or writing fails.
    """
    wanted = parse_output(spec) if isinstance(spec, str) else spec
    written = _made_again_once(result, lambda one: _export(one, wanted))
    _commit(result)
    return written


def seal(result: BuildResult) -> BuildResult:
    """Make the archives that the layers of a result lack; the result with all digests.

    A build leaves open what nobody asked for: archives are made for exports and tags, and here.
    A layer that turns out to be gone or damaged is made again, once. Raises `CacheError` where an
    archive can't be written.
    """
    found = _made_again_once(result, _sealed)
    _commit(result)
    return found


def _commit(result: BuildResult) -> None:
    """Keep the archives that were just made of what a result had without one."""
    if result.built is not None and any(layer.is_open for layer in result.built.layers):
        result.content.store.commit()


def _made_again_once(result: BuildResult, use: Callable[[BuildResult], BuildResult]) -> BuildResult:
    try:
        return use(result)
    except CacheError:
        for layer in result.state.layers if result.state is not None else ():
            if result.content.store.blobs.intact(layer.descriptor) and layer.tree:
                with contextlib.suppress(CacheError):
                    result.content.inputs.index(layer)
        return use(result.content.again())


def _sealed(result: BuildResult) -> BuildResult:
    """The result with the archives of its layers, each of which is that of its layer."""
    built, state = result.built, result.state
    if built is None or state is None:
        return result
    content = result.content
    layers = tuple(content.store.blobs.sealed(layer) for layer in built.layers)
    for layer in layers:
        if layer.tree:
            content.inputs.index(layer)  # compares them, whoever recorded the archive
    if layers == built.layers:
        return result
    built = evolve(built, layers=layers)
    report = evolve(result.report, image=image_report(built, state))
    return evolve(result, built=built, report=report)


def _export(result: BuildResult, wanted: OutputSpec) -> BuildResult:
    if result.built is None:
        raise UsageError("a plan has no result to write")
    built = result.built
    if wanted.type in {"oci", "docker", "registry"}:
        result = _sealed(result)
        built = result.built or built
    if wanted.type in {"oci", "docker", "registry"} and _base_by_name(result.state):
        raise UsageError(
            f"--output type={wanted.type}: this executor does not read the files of the "
            "base image, so no complete image can be written: begin with FROM scratch, "
            "or use --executor rootfs"
        )
    epoch = built.epoch
    if epoch is None:
        epoch = source_date(os.environ.get("SOURCE_DATE_EPOCH"))
    exported = export_image(
        built,
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
    if result.built is not None and result.built.names:
        result = _sealed(result)
        assert result.built is not None
        tag_image(result.content.store, result.built, result.content.fetch)


def _base_by_name(state: State | None) -> bool:
    """Whether the lowest state is a name without layers (workspace executor)."""
    while state is not None and state.layer is not None:
        state = state.parent
    return state is not None and bool(state.chain_id)
