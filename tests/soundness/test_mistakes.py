"""Mistakes of an embedder are errors that name what is wrong and what to do, before anything
runs."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from layercache.builds.builder import Builder
from layercache.dockerfile.instructions import From, Run
from layercache.errors import LayerCacheError, UsageError
from layercache.model.instruction import Field
from layercache.model.selectors import EVERYTHING, Files
from layercache.solver import ContentKeys
from layercache.testing.executors import MemoryExecutor


@attrs.frozen
class Own:
    gives: object = ()
    read: object = ()
    name = "OWN"
    text = "OWN"

    def definition(self):
        if isinstance(self.gives, Exception):
            raise self.gives
        return self.gives

    def reads(self):
        return self.read


def wrong(value: object) -> Any:
    """A value of a type that is not the one asked for."""
    return value


def build(recipe, **options):
    executor = MemoryExecutor()
    try:
        Builder(executor=executor).build(recipe, **options)
    finally:
        assert not executor.log if hasattr(executor, "log") else True


@pytest.mark.parametrize(
    ("recipe", "says"),
    [
        (["RUN x"], r"'RUN x' is text: write Run"),
        ([From("scratch"), Run], r"is not an instruction"),
        ([From("scratch"), 7], r"is not an instruction"),
        ([From("scratch"), Own({"a": 1})], r"Own\.definition\(\) gives dict"),
        ([From("scratch"), Own("text")], r"Own\.definition\(\) gives str"),
        ([From("scratch"), Own(None)], r"Own\.definition\(\) gives NoneType"),
        ([From("scratch"), Own((("a", 1),))], r"tuple of Field"),
        ([From("scratch"), Own((Field("a", wrong(1.5)),))], r"field 'a'"),
        ([From("scratch"), Own(ValueError("oh"))], r"Own\.definition\(\) raised ValueError: oh"),
        ([From("scratch"), Own((), [("a", None)])], r"Own\.reads\(\) gives"),
        ([From("scratch"), Own((), [("a", None, "x")])], r"Own\.reads\(\).*selector"),
        ([From("scratch"), Own((), [("a", "nowhere", EVERYTHING)])], r"nowhere"),
    ],
)
def test_a_recipe_of_a_wrong_shape(recipe, says):
    with pytest.raises(LayerCacheError, match=says):
        build(recipe)


def test_options_of_a_wrong_type():
    with pytest.raises(UsageError, match=r"no_cache is True, False or a function"):
        build([From("scratch"), Run("true")], no_cache="RUN")
    with pytest.raises(UsageError, match=r"executor must have traits"):
        Builder(executor=wrong("workspace"))
    with pytest.raises(UsageError, match=r"executor must have traits"):
        Builder(executor=wrong(MemoryExecutor))
    for keys in ("content", ContentKeys):
        with pytest.raises(UsageError, match=r"keys is a key strategy"):
            Builder(keys=wrong(keys))
    for recipe in (None, 5, iter([Run("true")])):
        with pytest.raises(UsageError, match=r"a recipe is a Dockerfile or a list"):
            build(recipe)
    with pytest.raises(UsageError, match=r"args is a mapping of names to texts"):
        build([From("scratch"), Run("true")], args=["A=1"])
    with pytest.raises(UsageError, match=r"the build argument A is a text, not 1"):
        build([From("scratch"), Run("true")], args={"A": 1})
    with pytest.raises(UsageError, match=r"jobs is the number of steps that may run at once"):
        Builder(jobs=0)
    with pytest.raises(UsageError, match=r"write Files\(\('a\.txt',\)\)"):
        Files("a.txt")
    assert Files(["a", "b"]).patterns == ("a", "b")
