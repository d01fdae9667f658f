"""The rootfs executor: each command in an overlay of the image's layers, in namespaces of its own.

Loaded lazily: the helper process imports this package without any dependency.
"""

from __future__ import annotations

__all__ = ["Mode", "Probe", "RootfsExecutor", "probe"]

_PLACES = {
    "Mode": "capabilities",
    "Probe": "capabilities",
    "RootfsExecutor": "executor",
    "probe": "capabilities",
}

TYPE_CHECKING = False
if TYPE_CHECKING:
    from layercache.executors.rootfs.capabilities import Mode, Probe, probe
    from layercache.executors.rootfs.executor import RootfsExecutor


def __getattr__(name: str) -> object:
    place = _PLACES.get(name)
    if place is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{place}"), name)
