"""Sources of an embedder's own, read by instructions of an embedder's own."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import pytest

from layercache import Builder, UsageError
from layercache.errors import LayerCacheError, SourceError
from layercache.model import EVERYTHING, Field, Files, Result
from layercache.model.selectors import Selector

NOTES: dict[str, object] = {}
FETCHED: list[str] = []


@attrs.frozen
class Release:
    """What is in `NOTES` under a version."""

    version: str

    @property
    def name(self) -> str:
        return f"release {self.version}"

    def definition(self) -> tuple[Field, ...]:
        return (Field("version", self.version),)

    def fetch(self) -> object:
        FETCHED.append(self.version)
        found = NOTES[self.version]
        if isinstance(found, Exception):
            raise found
        return found


@attrs.frozen
class Read:
    """Reads a release; `number` makes several of them."""

    release: object
    selector: Selector = EVERYTHING
    number: int = 0

    name = "READ"

    def definition(self) -> tuple[Field, ...]:
        return (Field("number", self.number),)

    def reads(self) -> list[tuple[str, object, Selector]]:
        return [("release", self.release, self.selector)]


class Reader:
    """Executes `Read`: its output is the notes."""

    traits = ()

    def execute(self, task, blobs):
        subject = next(bound.subject for bound in task.inputs if bound.role == "release")
        with blobs.tree(subject).open(b"notes.txt") as content:
            return Result(layer=None, output=content.read())


@pytest.fixture
def builder() -> Builder:
    NOTES.clear()
    FETCHED.clear()
    return Builder(executor=Reader())


def build(builder: Builder, *steps: Read) -> list[tuple[str | None, bytes | None]]:
    result = builder.build(list(steps))
    return [(step.decision, result.log(n)) for n, step in enumerate(result.steps)]


def test_a_source_is_fetched_once_and_counts_by_its_content(builder: Builder) -> None:
    """Its name is no part of the key; what it holds is."""
    NOTES.update({"1": {"notes.txt": "first"}, "2": {"notes.txt": "first"}})
    one, two = Release("1"), Release("2")

    assert build(builder, Read(one), Read(one, number=1)) == [("miss", b"first")] * 2
    assert FETCHED == ["1"]
    assert build(builder, Read(two)) == [("hit", b"first")]
    NOTES["2"] = {"notes.txt": "other"}
    assert build(builder, Read(two)) == [("miss", b"other")]


def test_what_is_selected_counts_and_an_ignore_file_is_a_file(builder: Builder) -> None:
    """A source isn't a build context: all that it holds is there."""
    files: Mapping[str, str] = {"notes.txt": "first", ".dockerignore": "*.txt"}
    NOTES["1"] = {**files, "other": "1"}
    step = Read(Release("1"), Files(("*.txt",)))

    assert build(builder, step) == [("miss", b"first")]
    NOTES["1"] = {**files, "other": "2"}
    assert build(builder, step) == [("hit", b"first")]


@pytest.mark.parametrize(
    ("found", "error", "words"),
    [
        (OSError(5, "no answer"), SourceError, r"release 1 can't be fetched: .*no answer"),
        (SourceError("no such release"), SourceError, "no such release"),
        ("/a/directory", UsageError, r"fetch\(\) gave str, not a Tree"),
    ],
)
def test_what_can_not_be_had_is_one_clear_error(
    builder: Builder, found: object, error: type[LayerCacheError], words: str
) -> None:
    NOTES["1"] = found
    with pytest.raises(error, match=words):
        build(builder, Read(Release("1")))


def test_a_source_that_can_not_be_opened_says_what_it_lacks(builder: Builder) -> None:
    @attrs.frozen
    class Bare:
        name = "bare"

        def definition(self) -> tuple[Field, ...]:
            return ()

    with pytest.raises(SourceError, match=r"bare: give its type a method fetch\(\)"):
        build(builder, Read(Bare()))


def test_sources_that_are_equal_and_not_the_same_are_refused(builder: Builder) -> None:
    """Python takes 1 and True for one; the one's content would be given for the other's."""

    @attrs.frozen
    class Numbered:
        number: bool | int

        @property
        def name(self) -> str:
            return f"number {self.number!r}"

        def definition(self) -> tuple[Field, ...]:
            return (Field("number", self.number),)

        def fetch(self) -> object:
            return {"notes.txt": self.name}

    assert build(builder, Read(Numbered(1)), Read(Numbered(1))) == [("miss", b"number 1")] * 2
    with pytest.raises(UsageError, match="number 1 and number True are equal, but not by their"):
        build(builder, Read(Numbered(1)), Read(Numbered(True)))
