"""Classes made without attrs are classes of attrs to everybody who looks."""

from __future__ import annotations

import copy
import inspect
import pickle
import subprocess
import sys
import weakref
from typing import Any

import attrs
import pytest

from layercache._base.classes import define, evolve, field, frozen


def _twin(decorate, make_field, mutable):
    """One class body, decorated by attrs or by this package."""

    @decorate
    class Base:
        one: int
        two: str = "x"

        def __init_subclass__(cls) -> None:
            super().__init_subclass__()

    @decorate
    class Twin(Base):
        """Everything that fields can be."""

        many: list[int] = make_field(factory=list)
        number: Any = make_field(default=3, converter=int)
        quiet: int = make_field(default=0, eq=False, repr=False)
        folded: str = make_field(default="", eq=str.lower)
        _private: int = 5
        named: str = make_field(default="n", kw_only=True)
        length: Any = make_field(init=False, repr=False, eq=False)

        @length.default  # type: ignore[untyped-decorator]
        def _length(self) -> int:
            return len(self.two)

        @number.validator  # type: ignore[untyped-decorator]
        def _check(self, attribute: attrs.Attribute[int], value: int) -> None:
            if value < 0:
                raise ValueError(f"{attribute.name} is {value}")

        def __attrs_post_init__(self) -> None:
            if self.one == 99:
                raise LookupError("ninety-nine")

        def parent(self) -> type:
            return __class__  # type: ignore[name-defined, no-any-return]

    return Twin


THEIRS = _twin(attrs.frozen, attrs.field, mutable=False)
OURS = _twin(frozen, field, mutable=False)
CALLS = [
    ((1,), {}),
    ((1, "two", [3], "4"), {"named": "m", "private": 8}),
    ((), {"one": 1}),
    ((1,), {"folded": "ABC", "quiet": 9}),
    ((), {}),
    ((1, 2, 3, 4, 5, 6, 7, 8, 9), {}),
    ((1,), {"one": 1}),
    ((1,), {"none": 1}),
    ((1,), {"length": 1}),
    ((1,), {"number": -1}),
    ((1,), {"number": "x"}),
    ((99,), {}),
]


def _done(cls, args, kwargs):
    try:
        value = cls(*args, **kwargs)
    except (TypeError, ValueError, LookupError) as error:
        return type(error), str(error).replace("._twin.<locals>", "")
    names = [each.name for each in attrs.fields(cls)]
    return {name: getattr(value, name) for name in names}, repr(value)


@pytest.mark.parametrize("times", [1, 30])
@pytest.mark.parametrize(("args", "kwargs"), CALLS)
def test_values_are_made_as_attrs_makes_them(args, kwargs, times) -> None:
    """Interpreted and compiled, right and wrong calls: values, text and errors are the same."""
    for _ in range(times):
        OURS(1)
    theirs, ours = _done(THEIRS, args, kwargs), _done(OURS, args, kwargs)
    if isinstance(theirs[0], type):
        assert theirs[0] is ours[0]
        assert theirs[1].partition("(")[2] == ours[1].partition("(")[2]
    else:
        assert theirs == ours


def test_equality_and_hashes() -> None:
    """Fields that do not count do not; a key function folds; another class is never equal."""
    assert OURS(1, quiet=1) == OURS(1, quiet=2)
    assert hash(OURS(1, "x", ())) == hash(OURS(1, "x", (), quiet=7))
    assert OURS(1, folded="A") == OURS(1, folded="a")
    assert OURS(1) != OURS(2)
    assert OURS(1) != THEIRS(1)


def test_values_are_frozen_slotted_and_travel() -> None:
    """No field changes, there is no dictionary, copies and pickles are equal."""
    value: Any = OURS(1)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        value.one = 2
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        del value.one
    assert not hasattr(value, "__dict__")
    assert value.parent() is OURS
    assert copy.copy(value) == copy.deepcopy(value) == value
    assert weakref.ref(value)() is value
    picked = pickle.loads(pickle.dumps(Pickled(1, "b")))
    assert Pickled(1, "b") == picked


@frozen
class Pickled:
    one: int
    two: str


@define
class Counter:
    count: int = 0


def test_defined_values_change() -> None:
    """And have no hash."""
    counter = Counter()
    counter.count += 2
    assert Counter(2) == counter
    with pytest.raises(TypeError, match="unhashable"):
        hash(counter)


def test_attrs_takes_them_for_its_own() -> None:
    """`fields`, `evolve`, `asdict`, and a subclass made by attrs itself."""
    assert [f.name for f in attrs.fields(THEIRS)] == [f.name for f in attrs.fields(OURS)]
    assert [f.alias for f in attrs.fields(THEIRS)] == [f.alias for f in attrs.fields(OURS)]
    ours: Any = OURS
    theirs: Any = THEIRS
    assert attrs.has(OURS)
    assert attrs.asdict(ours(1)) == attrs.asdict(theirs(1))
    for change in (attrs.evolve, evolve):
        assert ours(1, "y", private=3) == change(ours(1, private=3), two="y")

    @attrs.frozen
    class Sub(Pickled):
        three: int = 0

    assert "Sub(one=1, two='2', three=3)" in repr(Sub(1, "2", 3))
    assert Sub(1, "2", 4) == evolve(Sub(1, "2"), three=4)


def test_help_shows_the_fields() -> None:
    """The signature names parameters, kinds, defaults and types, as that of attrs."""
    theirs, ours = inspect.signature(THEIRS), inspect.signature(OURS)
    assert list(theirs.parameters) == list(ours.parameters)
    assert [p.kind for p in theirs.parameters.values()] == [
        p.kind for p in ours.parameters.values()
    ]
    assert "int" == str(ours.parameters["one"].annotation)
    assert OURS.__match_args__ == THEIRS.__match_args__


def test_a_build_that_reuses_everything_does_not_load_attrs() -> None:
    """Classes of the library are made, and used a little, without it."""
    program = (
        "import sys\n"
        "from layercache import Copy, Run\n"
        "from layercache.model.tree import Node\n"
        "import layercache.cli.build\n"
        "assert Node(1) == Node(1); Run('x')\n"
        "print('attrs' in sys.modules or 'attr' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "False\n" == done.stdout, done.stderr
