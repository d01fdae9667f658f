"""Frozen values: `attrs.frozen`, but for one thing that only costs time when a class is made.

Each class of attrs gets a `__repr__` of its own, written, parsed and compiled when the module is
loaded. Dozens of classes load for the shortest build, so here they share one.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from attrs import frozen as frozen  # noqa: PLC0414 - given on
else:
    import attrs

    def frozen(cls=None, /, **options):
        if cls is None:
            return lambda cls: frozen(cls, **options)
        if "__repr__" not in vars(cls) and "repr" not in options:
            cls.__repr__ = _shown
        return attrs.frozen(cls, **options)

    def _shown(self):
        """As attrs shows a value: `Name(field=value, ...)`."""
        cls = type(self)
        fields = []
        for field in cls.__attrs_attrs__:
            if field.repr is not False:
                show = field.repr if callable(field.repr) else repr
                fields.append(f"{field.alias}={show(getattr(self, field.alias))}")
        return f"{cls.__qualname__.rpartition('>.')[2]}({', '.join(fields)})"


__all__ = ["frozen"]
