"""Laws of the parser over any text: it raises one error only, and texts read back equal."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from layercache.dockerfile.syntax.parser import parse
from layercache.errors import DockerfileError
from tests.dockerfile.generators import Maker

PIECES = ["FROM", "RUN", "COPY", "ADD", "ENV", "ARG", "ONBUILD", "HEALTHCHECK", "CMD", "SHELL"]
PIECES += [" ", "\n", "\\\n", "\\", "`", "# escape=`\n", "#", "<<E", "\nE\n", "<<-'E'", "--mount="]
PIECES += ["--from=", "type=cache", "target=/c", ",", "=", '"', "'", "$", "{", "}", "[", "]"]
PIECES += ['["a"]', "a", "b", "\t", "\r\n", "\0", "\ufeff", "\ud800", "\u3000", "é", ":-", "//"]
PIECES += ["NONE", "AS"]
SYNTAX = st.lists(st.sampled_from(PIECES)).map("".join)


@given(SYNTAX | st.text() | st.binary())
@settings(max_examples=500)
def test_parsing_raises_nothing_else(text: str | bytes) -> None:
    """Any text, and any bytes, are read or refused with `DockerfileError`."""
    caught = None
    try:
        parse(text)
    except DockerfileError as error:
        caught = error

    assert caught is None or (caught.problems and str(caught).encode())


@given(SYNTAX)
@settings(max_examples=500)
def test_any_instruction_reads_back(text: str) -> None:
    """Whatever is read behind a FROM, its canonical text reads back equal."""
    try:
        parsed = parse("FROM base\n" + text)
    except DockerfileError:
        return
    rendered = [instruction.render(parsed.escape) for instruction in parsed.instructions]

    assert parse("\n".join(rendered)).instructions == parsed.instructions


def test_generated_files_read_back() -> None:
    """The same over files that look like real ones, with either escape character."""
    runs, seed = 1_500, 99
    maker = Maker(seed)
    for _ in range(runs):
        parsed = parse(maker.dockerfile())
        lines = [instruction.render(parsed.escape) for instruction in parsed.instructions]
        again = "\n".join([f"# escape={parsed.escape}", *lines])

        assert parse(again).instructions == parsed.instructions

    print(f"{runs} run, seed {seed}")


def test_scrambled_files_read_back() -> None:
    """What is read of a scrambled file reads back equal, too."""
    runs, seed, read = 3_000, 100, 0
    maker = Maker(seed)
    for _ in range(runs):
        text = maker.scrambled()
        try:
            parsed = parse(text)
        except DockerfileError:
            continue
        read += 1
        lines = [instruction.render(parsed.escape) for instruction in parsed.instructions]
        again = "\n".join([f"# escape={parsed.escape}", *lines])
        assert parse(again).instructions == parsed.instructions, (text, again)

    print(f"{runs} run, seed {seed}, {read} read")
