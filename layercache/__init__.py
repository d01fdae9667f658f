"""layercache: an image layer cache engine.

The public names, each loaded when it is first used: importing the package costs next to nothing.

    from layercache import Builder, Copy, Run

    result = Builder("cache").build(
        [Copy("package*.json", "./"), Run("npm install"), Copy(".", ".")], context="."
    )
    for step in result.steps:
        print(step.decision, step.text)
"""

from __future__ import annotations

TYPE_CHECKING = False  # as in `typing`, whose import is what costs most here
if TYPE_CHECKING:
    from layercache._version import __version__
    from layercache.builds.builder import Builder
    from layercache.builds.request import Request
    from layercache.builds.result import BuildResult
    from layercache.dockerfile.instructions import (
        Add,
        Arg,
        BindMount,
        CacheMount,
        Cmd,
        Copy,
        Device,
        DockerfileInstruction,
        Entrypoint,
        Env,
        Expose,
        From,
        Healthcheck,
        HereDoc,
        Label,
        Maintainer,
        Onbuild,
        Run,
        SecretMount,
        Shell,
        SshMount,
        Stopsignal,
        TmpfsMount,
        User,
        Volume,
        Workdir,
    )
    from layercache.dockerfile.recipe import Dockerfile
    from layercache.dockerfile.syntax.words import literal
    from layercache.errors import (
        BuildError,
        CacheError,
        Cancelled,
        ContextChanged,
        CorruptObject,
        DockerfileError,
        ExecutorUnavailable,
        HostileArchive,
        LayerCacheError,
        MissingExtra,
        NotFound,
        PolicyError,
        Problem,
        SourceError,
        StepFailed,
        UsageError,
    )
    from layercache.events import (
        BuildFinished,
        BuildStarted,
        CacheTrouble,
        Event,
        Note,
        Observer,
        StepExecuted,
        StepFinished,
        StepOutput,
        StepStarted,
    )
    from layercache.executors.rootfs import RootfsExecutor
    from layercache.executors.workspace.executor import Workspace
    from layercache.model.descriptors import SCRATCH, Descriptor, Layer, State
    from layercache.model.graph import Graph, Input, Origin, Step
    from layercache.model.instruction import Field, Instruction, Source
    from layercache.model.keys import KeyMaterial, KeyStrategy
    from layercache.model.operations import CopyFiles, Exec, MakeDirectory
    from layercache.model.selectors import EVERYTHING, NOTHING, Files, Selector
    from layercache.model.task import Blobs, Executor, Result, Task
    from layercache.reports.reasons import Change, Reason
    from layercache.reports.report import ErrorReport, ImageReport, Report, StepReport
    from layercache.solver.protocol import Walk, Walker
    from layercache.solver.step_filter import step_selector
    from layercache.solver.strategies import ChainKeys, ContentKeys
    from layercache.solver.walker import GraphWalker
    from layercache.store.backend import Backend
    from layercache.store.open import open_store
    from layercache.store.store import Store

__all__ = [
    "EVERYTHING",
    "NOTHING",
    "SCRATCH",
    "Add",
    "Arg",
    "Backend",
    "BindMount",
    "Blobs",
    "BuildError",
    "BuildFinished",
    "BuildResult",
    "BuildStarted",
    "Builder",
    "CacheError",
    "CacheMount",
    "CacheTrouble",
    "Cancelled",
    "ChainKeys",
    "Change",
    "Cmd",
    "ContentKeys",
    "ContextChanged",
    "Copy",
    "CopyFiles",
    "CorruptObject",
    "Descriptor",
    "Device",
    "Dockerfile",
    "DockerfileError",
    "DockerfileInstruction",
    "Entrypoint",
    "Env",
    "ErrorReport",
    "Event",
    "Exec",
    "Executor",
    "ExecutorUnavailable",
    "Expose",
    "Field",
    "Files",
    "From",
    "Graph",
    "GraphWalker",
    "Healthcheck",
    "HereDoc",
    "HostileArchive",
    "ImageReport",
    "Input",
    "Instruction",
    "KeyMaterial",
    "KeyStrategy",
    "Label",
    "Layer",
    "LayerCacheError",
    "Maintainer",
    "MakeDirectory",
    "MissingExtra",
    "NotFound",
    "Note",
    "Observer",
    "Onbuild",
    "Origin",
    "PolicyError",
    "Problem",
    "Reason",
    "Report",
    "Request",
    "Result",
    "RootfsExecutor",
    "Run",
    "SecretMount",
    "Selector",
    "Shell",
    "Source",
    "SourceError",
    "SshMount",
    "State",
    "Step",
    "StepExecuted",
    "StepFailed",
    "StepFinished",
    "StepOutput",
    "StepReport",
    "StepStarted",
    "Stopsignal",
    "Store",
    "Task",
    "TmpfsMount",
    "UsageError",
    "User",
    "Volume",
    "Walk",
    "Walker",
    "Workdir",
    "Workspace",
    "__version__",
    "literal",
    "open_store",
    "step_selector",
]

_HOMES = {
    "_version": "__version__",
    "builds.builder": "Builder",
    "solver.step_filter": "step_selector",
    "model.descriptors": "SCRATCH Descriptor Layer State",
    "dockerfile.instructions": (
        "Add Arg BindMount CacheMount Cmd Copy Device DockerfileInstruction Entrypoint Env "
        "Expose From Healthcheck HereDoc Label Maintainer Onbuild Run SecretMount Shell "
        "SshMount Stopsignal TmpfsMount User Volume Workdir"
    ),
    "dockerfile.syntax.words": "literal",
    "errors": (
        "BuildError CacheError Cancelled ContextChanged CorruptObject DockerfileError "
        "ExecutorUnavailable HostileArchive LayerCacheError MissingExtra NotFound PolicyError "
        "Problem SourceError StepFailed UsageError"
    ),
    "events": (
        "BuildFinished BuildStarted CacheTrouble Event Note Observer StepExecuted StepFinished "
        "StepOutput StepStarted"
    ),
    "model.task": "Blobs Executor Result Task",
    "executors.rootfs": "RootfsExecutor",
    "executors.workspace.executor": "Workspace",
    "reports.reasons": "Change Reason",
    "model.graph": "Graph Input Origin Step",
    "model.instruction": "Field Instruction Source",
    "model.keys": "KeyMaterial KeyStrategy",
    "store.open": "open_store",
    "model.operations": "CopyFiles Exec MakeDirectory",
    "dockerfile.recipe": "Dockerfile",
    "reports.report": "ErrorReport ImageReport Report StepReport",
    "builds.request": "Request",
    "builds.result": "BuildResult",
    "model.selectors": "EVERYTHING NOTHING Files Selector",
    "store.backend": "Backend",
    "store.store": "Store",
    "solver.strategies": "ChainKeys ContentKeys",
    "solver.protocol": "Walk Walker",
    "solver.walker": "GraphWalker",
}
"""Module → the names that come from it."""

_HOME = {name: module for module, names in _HOMES.items() for name in names.split()}


if not TYPE_CHECKING:  # a type checker shall know a misspelt name when it sees one

    def __getattr__(name):
        module = _HOME.get(name)
        if module is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        value = getattr(import_module(f"{__name__}.{module}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return __all__
