"""The inputs of lowering other than the recipe, and its results."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from layercache._base.classes import field, frozen
from layercache.model.descriptors import State
from layercache.model.graph import Graph, Origin
from layercache.model.image_config import HistoryEntry, ImageConfig

__all__ = ["ImageNeed", "Lowered", "Needs", "Options", "ResolvedBase", "Row"]


@frozen
class ImageNeed:
    """An image to resolve: its reference as written, and the platform wanted ("" for any)."""

    name: str
    platform: str = ""


@frozen
class ResolvedBase:
    """A resolved image: its layers as a state, its configuration."""

    name: str
    state: State
    config: ImageConfig


@frozen
class Needs:
    """Images that must be resolved before lowering can continue."""

    images: tuple[ImageNeed, ...]


def _never(origin: Origin) -> bool:
    return False


@frozen(kw_only=True)
class Options:
    """The options of a build that affect lowering.

    `args` are `--build-arg` values; `contexts` the names of further contexts, True for those
    that are images; `platform` the target's, as `os/architecture[/variant]`, which the image
    gets whatever its base says where it was asked for (`platform_asked`); `spelling` gives the
    usual spelling of a platform, or raises `UsageError`; `no_cache` tells for the origin of a
    step whether the cache is bypassed; `no_cache_stages` are lower-case names of
    `--no-cache-filter`. `host_path`: commands run with the executor's own PATH, so a
    base without one gets none.
    """

    args: Mapping[str, str] = field(factory=dict)
    target: str | None = None
    contexts: Mapping[str, bool] = field(factory=dict)
    platform: str = "linux/amd64"
    platform_asked: bool = False
    spelling: Callable[[str], str] = str
    build_platform: str = "linux/amd64"
    no_cache: Callable[[Origin], bool] = _never
    no_cache_stages: frozenset[str] = frozenset()
    network: str = "default"
    hosts: tuple[tuple[str, str], ...] = ()
    shm_size: int | None = None
    ulimits: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(factory=dict)
    escape: str = "\\"
    host_path: bool = False

    def context_named(self, name: str) -> str | None:
        """The further context that a name in the recipe refers to; `base` also means
        `base:latest`.
        """
        lower = name.lower()
        if lower in self.contexts:
            return lower
        familiar = lower.removeprefix("docker.io/").removeprefix("library/")
        familiar = familiar.removesuffix(":latest")
        return familiar if familiar in self.contexts else None


@frozen
class Row:
    """One instruction of the recipe: its origin, its vertex if it is a step of the graph.

    `decides` is False for an instruction that never involves a cache decision (FROM, metadata).
    """

    origin: Origin
    vertex: int | None = None
    decides: bool = False


@frozen
class Lowered:
    """A recipe as a graph, with the facts that are not in the graph.

    `history` holds the entries that this recipe adds to the base image's, each with the step
    that makes its layer; `base` is the image that the target's first stage starts from.
    """

    graph: Graph
    target: int
    rows: tuple[Row, ...]
    config: ImageConfig
    history: tuple[tuple[HistoryEntry, int | None], ...]
    base: ImageNeed | None = None
    unused_args: tuple[str, ...] = ()
    idle_args: tuple[str, ...] = ()
    """Arguments that BuildKit acts on and this builder does not."""
    source_date: str | None = None
    """SOURCE_DATE_EPOCH as passed, or as an ARG before the first FROM sets it."""
    unnamed: tuple[str, ...] = ()
    """Names of `no_cache_stages` that no stage has."""
