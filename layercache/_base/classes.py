"""Classes with the semantics of `attrs.frozen` and `attrs.define`, but without their start-up cost.

`attrs` writes, parses and compiles methods for each class when its module is loaded; for the
dozens of classes of the shortest build, this took more than half of the run time. Here a class
gets slots at once, and its methods are compiled only after they have been used a few times.
attrs treats these classes as its own: `attrs.fields`, `attrs.evolve`, `attrs.asdict`, and
`attrs.frozen` on a subclass work, and load attrs on first use.

Type checkers see the functions of attrs, whose documentation applies.
`field` takes default, factory, converter, validator, init, eq, hash, repr, kw_only and alias;
the decorators `@name.default` and `@name.validator` work, and so does `__attrs_post_init__`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from attrs import define as define
    from attrs import evolve as evolve
    from attrs import field as field
    from attrs import frozen as frozen
else:
    from operator import attrgetter

    _COMPILED_AFTER = 8
    """Instances made before the `__init__` of a class is compiled; earlier ones are interpreted."""

    class _Nothing:
        __slots__ = ()

        def __repr__(self):
            return "NOTHING"

        def __bool__(self):
            return False

    NOTHING = _Nothing()
    _FUNCTION = type(lambda: None)

    class _Field:
        """What is known of a field; what a plain field does not set stands in the class."""

        fallback = NOTHING
        maker = None
        takes_self = False
        converter = None
        validators = ()
        init = True
        eq = True
        key = None
        hash = None
        repr = True
        kw_only = None
        alias = None

        def default(self, method):
            self.maker = method
            self.takes_self = True
            return method

        def validator(self, method):
            self.validators = [*self.validators, method]
            return method

    def field(
        *,
        default=NOTHING,
        factory=None,
        converter=None,
        validator=None,
        init=True,
        eq=True,
        hash=None,
        repr=True,
        kw_only=None,
        alias=None,
    ):
        made = _Field()
        made.fallback = default
        made.maker = factory
        made.converter = converter
        if validator is not None:
            made.validators = list(validator) if isinstance(validator, list) else [validator]
        made.init = init
        made.eq = bool(eq)
        made.key = eq if callable(eq) else None
        made.hash = hash
        made.repr = repr
        made.kw_only = kw_only
        made.alias = alias
        return made

    def frozen(cls=None, /, *, init=True, eq=True, repr=True, kw_only=False):
        if cls is None:
            return lambda cls: _made(cls, init, eq, repr, kw_only, True)
        return _made(cls, init, eq, repr, kw_only, True)

    def define(cls=None, /, *, init=True, eq=True, repr=True, kw_only=False):
        """Like `frozen`, for mutable values, which have no hash."""
        if cls is None:
            return lambda cls: _made(cls, init, eq, repr, kw_only, False)
        return _made(cls, init, eq, repr, kw_only, False)

    def evolve(value, /, **changes):
        """A copy of `value` with other values for some fields, like `attrs.evolve`."""
        cls = value.__class__
        own = cls.__dict__.get("__frozen_fields__")
        if own is None:
            import attrs

            return attrs.evolve(value, **changes)
        for each in own:
            if each.init and each.alias not in changes:
                changes[each.alias] = getattr(value, each.name)
        return cls(**changes)

    # -- making a class ---------------------------------------------------------------------

    def _made(cls, init, eq, repr, kw_only, immutable):
        space = dict(cls.__dict__)
        own = _own_fields(cls, space, kw_only)
        names = {each.name for each in own}
        fields = [each for each in _inherited(cls) if each.name not in names] + own
        weakly = any("__weakref__" in vars(base) for base in cls.__mro__[1:-1])
        for name in (*names, "__dict__", "__weakref__"):
            space.pop(name, None)
        slotted = {slot for base in cls.__mro__[1:-1] for slot in vars(base).get("__slots__", ())}
        space["__slots__"] = (
            *(each.name for each in own if each.name not in slotted),
            *(() if weakly else ("__weakref__",)),
        )
        space["__qualname__"] = cls.__qualname__
        space["__frozen_fields__"] = tuple(fields)
        space["__attrs_attrs__"] = _ATTRIBUTES
        space.setdefault(
            "__match_args__", tuple(f.name for f in fields if f.init and not f.kw_only)
        )
        if repr and "__repr__" not in space:
            space["__repr__"] = _shown
        if "__eq__" not in space and eq:
            if not immutable:
                space.setdefault("__hash__", None)
            _add_equality(space, fields)
        if immutable:
            space.setdefault("__setattr__", _refuse_to_set)
            space.setdefault("__delattr__", _refuse_to_delete)
        if "__getstate__" not in space:
            space["__getstate__"] = _state
            space["__setstate__"] = _restore
        if init and "__init__" not in space:
            space["__init__"] = _first_init(fields, "__init__")
            space["__signature__"] = _SIGNATURE
        else:
            space["__attrs_init__"] = _first_init(fields, "__attrs_init__")
        made = type(cls)(cls.__name__, cls.__bases__, space)
        _move_closures(cls, made)
        return made

    def _own_fields(cls, space, kw_only):
        own = []
        # If annotations are evaluated lazily, the class has them and its namespace does not.
        annotations = space.get("__annotations__")
        if annotations is None:
            lazy = "__annotate_func__" in space or "__annotate__" in space
            annotations = cls.__annotations__ if lazy else {}
        for name, kind in annotations.items():
            if isinstance(kind, str):
                if kind.startswith(("ClassVar", "typing.ClassVar")):
                    continue
            elif "ClassVar" in str(kind):
                continue
            given = space.get(name, NOTHING)
            if given.__class__ is _Field:
                made = given
            else:
                made = _Field()
                made.fallback = given
            made.name = name
            made.type = kind
            if made.alias is None:
                made.alias = name.lstrip("_")
            if made.kw_only is None:
                made.kw_only = kw_only
            own.append(made)
        return own

    def _inherited(cls):
        found = {}
        for base in reversed(cls.__mro__[1:-1]):
            for each in vars(base).get("__frozen_fields__") or ():
                found.pop(each.name, None)
                found[each.name] = each
        return list(found.values())

    def _move_closures(old, new):
        """Make `super()` and `__class__` in methods refer to the class with slots."""
        for value in vars(new).values():
            kind = value.__class__
            if kind is property:
                value = value.fget
            elif kind is classmethod or kind is staticmethod:
                value = value.__func__
            elif kind is not _FUNCTION:
                continue
            for cell in getattr(value, "__closure__", None) or ():
                try:
                    if cell.cell_contents is old:
                        cell.cell_contents = new
                except ValueError:
                    pass  # empty: of no class

    # -- methods that need no code of their own ---------------------------------------------

    def _add_equality(space, fields):
        compared = [each for each in fields if each.eq]
        key = _key(compared)

        def __eq__(self, other):
            if other.__class__ is not self.__class__:
                return NotImplemented
            return key(self) == key(other)

        space["__eq__"] = __eq__
        if "__hash__" not in space:
            hashed = [each for each in fields if (each.eq if each.hash is None else each.hash)]
            hashed_by = key if hashed == compared else _key(hashed)

            def __hash__(self):
                return hash(hashed_by(self))

            space["__hash__"] = __hash__

    def _key(fields):
        """The values of these fields as one value, for comparisons."""
        if not fields:
            return lambda value: ()
        if any(each.key is not None for each in fields):
            pairs = [(each.name, each.key) for each in fields]
            return lambda value: tuple(
                getattr(value, name) if key is None else key(getattr(value, name))
                for name, key in pairs
            )
        return attrgetter(*(each.name for each in fields))

    def _shown(self):
        """The repr as attrs writes it: `Name(field=value, ...)`; a private field is shown through
        the property of the same name, if there is one.
        """
        cls = self.__class__
        shown = []
        for each in cls.__frozen_fields__:
            if each.repr is not False:
                show = each.repr if callable(each.repr) else repr
                name = each.alias if hasattr(cls, each.alias) else each.name
                shown.append(f"{name}={show(getattr(self, name, NOTHING))}")
        return f"{cls.__qualname__.rpartition('>.')[2]}({', '.join(shown)})"

    def _refuse_to_set(self, name, value):
        from attrs.exceptions import FrozenInstanceError

        raise FrozenInstanceError

    def _refuse_to_delete(self, name):
        from attrs.exceptions import FrozenInstanceError

        raise FrozenInstanceError

    def _state(self):
        return {each.name: getattr(self, each.name) for each in self.__frozen_fields__}

    def _restore(self, state):
        put = object.__setattr__.__get__(self)
        for each in self.__frozen_fields__:
            if each.name in state:
                put(each.name, state[each.name])

    # -- __init__ ---------------------------------------------------------------------------

    def _first_init(fields, name):
        """An `__init__` that is interpreted at first, and replaced by a compiled one."""
        calls = 0
        positional = [each for each in fields if each.init and not each.kw_only]

        def __init__(self, *args, **kwargs):
            nonlocal calls
            calls += 1
            if calls > _COMPILED_AFTER or len(args) > len(positional):
                # Also for a wrong call: Python gives the best message.
                owner = _owner_of(self.__class__, name, __init__)
                compiled = _compiled_init(fields, name, owner)
                if owner is not None:
                    type.__setattr__(owner, name, compiled)
                return compiled(self, *args, **kwargs)
            put = object.__setattr__.__get__(self)
            given = dict(zip((each.alias for each in positional), args, strict=False))
            if given.keys() & kwargs.keys():
                return _compiled_init(fields, name, None)(self, *args, **kwargs)
            given.update(kwargs)
            used = 0
            for each in fields:
                if each.init and each.alias in given:
                    value = given[each.alias]
                    used += 1
                elif each.maker is not None:
                    value = each.maker(self) if each.takes_self else each.maker()
                elif each.fallback is not NOTHING:
                    value = each.fallback
                elif each.init:
                    return _compiled_init(fields, name, None)(self, *args, **kwargs)
                else:
                    continue
                if each.converter is not None:
                    value = each.converter(value)
                put(each.name, value)
            if used != len(given):
                return _compiled_init(fields, name, None)(self, *args, **kwargs)
            _finish(self, fields)
            return None

        __init__.__name__ = name
        return __init__

    def _finish(self, fields):
        for each in fields:
            if each.validators:
                attribute = getattr(_attributes(self.__class__), each.name)
                for check in each.validators:
                    check(self, attribute, getattr(self, each.name))
        after = getattr(self, "__attrs_post_init__", None)
        if after is not None:
            after()

    def _owner_of(cls, name, function):
        return next((base for base in cls.__mro__ if base.__dict__.get(name) is function), None)

    def _compiled_init(fields, name, owner):
        """The `__init__` as compiled code, which also reports wrong arguments."""
        parameters, keywords, lines = [], [], []
        known = {"_NOTHING": NOTHING, "_put": object.__setattr__, "_finish": _finish}
        for number, each in enumerate(fields):
            source = each.alias if each.init else None
            if each.init:
                if each.maker is not None or each.fallback is not NOTHING:
                    known[f"_d{number}"] = NOTHING if each.maker is not None else each.fallback
                    text = f"{each.alias}=_d{number}"
                else:
                    text = each.alias
                (keywords if each.kw_only else parameters).append(text)
            if each.maker is not None:
                known[f"_m{number}"] = each.maker
                made = f"_m{number}({'self' if each.takes_self else ''})"
                source = made if source is None else f"{made} if {source} is _NOTHING else {source}"
            elif source is None:
                if each.fallback is NOTHING:
                    continue
                known[f"_d{number}"] = each.fallback
                source = f"_d{number}"
            if each.converter is not None:
                known[f"_c{number}"] = each.converter
                source = f"_c{number}({source})"
            lines.append(f"    put({each.name!r}, {source})")
        if keywords:
            parameters += ["*", *keywords]
        if any(each.validators for each in fields):
            lines.append("    _finish(self, _fields)")
            known["_fields"] = fields
        elif owner is None or hasattr(owner, "__attrs_post_init__"):
            lines.append("    _finish(self, ())")
        header = f"def {name}({', '.join(['self', *parameters])}):"
        text = "\n".join([header, "    put = _put.__get__(self)", *lines])
        space = {}
        exec(compile(text, "<the fields of a frozen class>", "exec"), known, space)
        made = space[name]
        if owner is not None:
            made.__qualname__ = f"{owner.__qualname__}.{name}"
            made.__module__ = owner.__module__
        return made

    # -- what attrs and inspect see ---------------------------------------------------------

    def _attributes(cls):
        """The fields of a class in the form that attrs uses."""
        found = cls.__dict__.get("__attrs_attrs__")
        if found is None or isinstance(found, _Attributes):
            import attrs

            made = attrs.make_class(
                cls.__name__, {f.name: _as_attrs(f) for f in cls.__frozen_fields__}
            )
            found = made.__attrs_attrs__
            type.__setattr__(cls, "__attrs_attrs__", found)
        return found

    def _as_attrs(each):
        import attrs

        default = each.fallback
        if each.maker is not None:
            default = attrs.Factory(each.maker, takes_self=each.takes_self)
        elif default is NOTHING:
            default = attrs.NOTHING
        return attrs.field(
            default=default,
            validator=each.validators or None,
            repr=each.repr,
            eq=each.key or each.eq,
            hash=each.hash,
            init=each.init,
            converter=each.converter,
            kw_only=bool(each.kw_only),
            alias=each.alias,
            type=each.type,
        )

    class _Attributes:
        """`__attrs_attrs__` of a class, made on first access."""

        def __get__(self, value, cls):
            if "__frozen_fields__" not in cls.__dict__:
                cls = next(base for base in cls.__mro__ if "__frozen_fields__" in base.__dict__)
            return _attributes(cls)

    class _Signature:
        """`__signature__` of a class, for help and completion."""

        def __get__(self, value, cls):
            if value is not None or cls.__dict__.get("__signature__") is not self:
                raise AttributeError("__signature__")
            import inspect

            plain = inspect.signature(_compiled_init(cls.__frozen_fields__, "__init__", cls))
            kinds = {f.alias: f.type for f in cls.__frozen_fields__}
            return plain.replace(
                parameters=[
                    one.replace(annotation=kinds.get(one.name, one.empty))
                    for one in list(plain.parameters.values())[1:]
                ]
            )

    _ATTRIBUTES = _Attributes()
    _SIGNATURE = _Signature()


__all__ = ["define", "evolve", "field", "frozen"]
