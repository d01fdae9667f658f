"""The options of a build or plan, as one value."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from layercache._base.classes import field, frozen
from layercache.dockerfile.recipe import Dockerfile
from layercache.errors import UsageError
from layercache.model.descriptors import MAX_UNPACKED_SIZE
from layercache.model.graph import Origin
from layercache.model.tree import Tree

if TYPE_CHECKING:
    from layercache.solver.step_filter import StepSelection

__all__ = [
    "ContextLike",
    "Request",
    "arguments_of",
    "bypass_of",
    "checked_recipe",
    "is_image",
    "one_spelling",
    "project_of",
    "with_source_date",
]

ContextLike = str | os.PathLike[str] | Mapping[str, object] | Tree


@frozen(kw_only=True)
class Request:
    """One requested build or plan. Every field has a default.

    `recipe` is a `Dockerfile` or instructions; `context` a directory, a tree or a mapping of paths
    to contents; `contexts` are further ones by name (`oci-layout://PATH` and `docker-image://NAME`
    are images). `no_cache` is True for all steps, or a predicate of a step's `Origin`;
    `no_cache_filter` names stages. `project` names the project for trails (default: context, recipe
    and target); `against` is a tag of this cache or another cache, with whose build the reasons
    compare. `paranoid` reads every selected file of a context again, instead of relying on
    unchanged stamps. `trace` is "off", "auto" or "audit" ("audit=0.2" sets the share that is run
    again), or a function that returns one of them for a step's `Origin`. `selections` must each
    select a step, and with `strict` each name of `no_cache_filter` a stage: otherwise `UsageError`
    before anything runs.
    """

    recipe: Dockerfile | Sequence[Any]
    context: ContextLike | None = None
    args: Mapping[str, str] = field(factory=dict)
    target: str | None = None
    no_cache: bool | Callable[[Origin], bool] = False
    no_cache_filter: Sequence[str] = ()
    contexts: Mapping[str, ContextLike] = field(factory=dict)
    tags: Sequence[str] = ()
    labels: Mapping[str, str] = field(factory=dict)
    annotations: Sequence[str] = ()
    platform: str | None = None
    network: str = "default"
    add_hosts: Sequence[tuple[str, str]] = ()
    shm_size: int | None = None
    ulimits: Sequence[str] = ()
    pull: bool = False
    paranoid: bool = False
    max_unpacked_size: int = MAX_UNPACKED_SIZE
    project: str | None = None
    against: str | None = None
    trace: str | Callable[[Origin], str] = "off"
    outputs: Sequence[str] = ()
    selections: Sequence[StepSelection] = ()
    strict: bool = False


def project_of(request: Request) -> str:
    """A stable name of the project, the same for each of its builds: for trails and workspaces."""
    if request.project is not None:
        return request.project
    recipe = request.recipe
    parts = []
    if isinstance(request.context, str | os.PathLike):
        parts.append(os.path.realpath(os.fspath(request.context)))
    parts.append((recipe.path or recipe.name) if isinstance(recipe, Dockerfile) else "")
    parts.append(request.target or "")
    return "\0".join(parts)


def checked_recipe(recipe: Dockerfile | Sequence[Any]) -> Dockerfile | Sequence[Any]:
    if not isinstance(recipe, Dockerfile | Sequence):
        raise UsageError(
            f"a recipe is a Dockerfile or a list of instructions, not {recipe!r}: use "
            "Dockerfile.parse(text) or Dockerfile.load(path)"
        )
    if isinstance(recipe, str | bytes):
        raise UsageError(
            "a recipe is a Dockerfile or a list of instructions, not text: use "
            "Dockerfile.parse(text) or Dockerfile.load(path)"
        )
    for item in recipe.instructions if isinstance(recipe, Dockerfile) else recipe:
        if isinstance(item, str | bytes):
            raise UsageError(
                f"a recipe is a list of instructions, and {item!r} is text: write "
                'Run("make"), or parse a whole file with Dockerfile.parse(text)'
            )
        if isinstance(item, type) or not (hasattr(item, "location") or hasattr(item, "name")):
            raise UsageError(
                f"{item!r} is not an instruction: a recipe is a list of values such as "
                'Run("make"), each with a name and a definition()'
            )
    return recipe


def one_spelling(platform: str | None) -> str:
    """The canonical spelling of a platform, which keys use: `linux/x86_64` becomes `linux/amd64`.

    Raises `UsageError` for a text that is not a platform.
    """
    if not platform:
        return ""
    from layercache.oci.platforms import Platform

    return str(Platform.parse(platform))


def arguments_of(args: Mapping[str, str | None]) -> dict[str, str]:
    """The build arguments; a value of None is taken from the environment, as with `--build-arg
    NAME`.
    """
    if not isinstance(args, Mapping):
        raise UsageError(
            f"args is a mapping of names to texts, not {args!r}: for instance "
            'args={"VERSION": "1.0"}'
        )
    found = {}
    for name, value in args.items():
        if not isinstance(value, str | None):
            raise UsageError(f"the build argument {name} is a text, not {value!r}")
        taken = os.environ.get(name) if value is None else value
        if taken is not None:
            found[name] = taken
    return found


def with_source_date(args: Mapping[str, str]) -> dict[str, str]:
    """Add SOURCE_DATE_EPOCH of the environment to the build arguments."""
    value = os.environ.get("SOURCE_DATE_EPOCH")
    return dict(args) if not value else {"SOURCE_DATE_EPOCH": value, **args}


def is_image(context: object) -> bool:
    text = context if isinstance(context, str) else ""
    return text.startswith(("oci-layout://", "docker-image://", "docker-archive://"))


def bypass_of(no_cache: bool | Callable[[Origin], bool]) -> Callable[[Origin], bool]:
    if callable(no_cache):
        return no_cache
    if not isinstance(no_cache, bool):
        raise UsageError(
            f"no_cache is True, False or a function of a step's Origin, not {no_cache!r}: for "
            "single steps pass no_cache=lambda origin: origin.op == 'RUN'"
        )
    return (lambda _: True) if no_cache else (lambda _: False)
