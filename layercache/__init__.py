"""layercache: an image layer cache engine.

This package exports what users of the library need. Authors of plug-ins import from
`layercache.model`, `.solver`, `.store`, `.executors`, `.layers` and `.testing`; all events and
errors are in `.events` and `.errors`. Each name is loaded when it is first used::

    from layercache import Builder, Copy, Run

    result = Builder("cache").build(
        [Copy("package*.json", "./"), Run("npm install"), Copy(".", ".")], context="."
    )
    for step in result.steps:
        print(step.decision, step.text)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from layercache._base.lazy import lazily

if TYPE_CHECKING:
    from layercache._version import __version__
    from layercache.builds.builder import Builder
    from layercache.builds.exporting import export, seal
    from layercache.builds.request import Request
    from layercache.builds.result import BuildResult
    from layercache.dockerfile.instructions import (
        Add,
        Arg,
        BindMount,
        CacheMount,
        Cmd,
        Copy,
        Entrypoint,
        Env,
        Expose,
        From,
        Healthcheck,
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
    from layercache.dockerfile.syntax.heredocs import HereDoc
    from layercache.dockerfile.syntax.words import literal
    from layercache.errors import (
        BuildError,
        CacheError,
        Cancelled,
        DockerfileError,
        LayerCacheError,
        StepFailed,
        UsageError,
    )
    from layercache.events import Observer, StepFinished, StepOutput
    from layercache.executors.rootfs.executor import RootfsExecutor
    from layercache.executors.workspace.executor import Workspace
    from layercache.solver.step_filter import step_selector
    from layercache.store.open import open_store
    from layercache.store.store import Store

__all__ = [
    "Add",
    "Arg",
    "BindMount",
    "BuildError",
    "BuildResult",
    "Builder",
    "CacheError",
    "CacheMount",
    "Cancelled",
    "Cmd",
    "Copy",
    "Dockerfile",
    "DockerfileError",
    "Entrypoint",
    "Env",
    "Expose",
    "From",
    "Healthcheck",
    "HereDoc",
    "Label",
    "LayerCacheError",
    "Maintainer",
    "Observer",
    "Onbuild",
    "Request",
    "RootfsExecutor",
    "Run",
    "SecretMount",
    "Shell",
    "SshMount",
    "StepFailed",
    "StepFinished",
    "StepOutput",
    "Stopsignal",
    "Store",
    "TmpfsMount",
    "UsageError",
    "User",
    "Volume",
    "Workdir",
    "Workspace",
    "__version__",
    "export",
    "literal",
    "open_store",
    "seal",
    "step_selector",
]

if not TYPE_CHECKING:  # hidden from type checkers, so that they still report misspelt names
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "_version": "__version__",
            "builds.builder": "Builder",
            "builds.exporting": "export seal",
            "builds.request": "Request",
            "builds.result": "BuildResult",
            "dockerfile.instructions": (
                "Add Arg BindMount CacheMount Cmd Copy Entrypoint Env Expose From Healthcheck "
                "Label Maintainer Onbuild Run SecretMount Shell SshMount Stopsignal "
                "TmpfsMount User Volume Workdir"
            ),
            "dockerfile.recipe": "Dockerfile",
            "dockerfile.syntax.heredocs": "HereDoc",
            "dockerfile.syntax.words": "literal",
            "errors": (
                "BuildError CacheError Cancelled DockerfileError LayerCacheError StepFailed "
                "UsageError"
            ),
            "events": "Observer StepFinished StepOutput",
            "executors.rootfs.executor": "RootfsExecutor",
            "executors.workspace.executor": "Workspace",
            "solver.step_filter": "step_selector",
            "store.open": "open_store",
            "store.store": "Store",
        },
    )
