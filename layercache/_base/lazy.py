"""Packages whose public names are loaded when they are first used (PEP 562)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

__all__ = ["lazily"]


def lazily(
    package: str, homes: Mapping[str, str]
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` for `package`.

    `homes` maps each module of the package to the public names that it defines, separated by
    spaces. Importing the package imports none of these modules. The same names are listed under
    `typing.TYPE_CHECKING`, for type checkers and editors, and in `__all__`.
    """

    def load(name: str) -> object:
        for module, names in homes.items():
            if name in names.split():
                from importlib import import_module

                value: object = getattr(import_module(f"{package}.{module}"), name)
                vars(import_module(package))[name] = value  # later accesses bypass this function
                return value
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def listed() -> list[str]:
        return sorted(name for names in homes.values() for name in names.split())

    return load, listed
