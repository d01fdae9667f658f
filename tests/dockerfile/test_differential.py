"""Two other readers see the same lines and words, in files right and wrong.

Every difference must be one of those that docs/explanation/dockerfile-differences.md lists.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import e2b_dockerfile_utils
import pytest

from layercache.dockerfile.syntax.expansion import expand
from layercache.errors import DockerfileError
from tests.dockerfile.generators import Maker
from tests.dockerfile.oracles import (
    Line,
    older_buildkit,
    ours,
    recent_buildkit,
    without_triggers,
)
from tests.dockerfile.scenarios import dockerfiles

SEED = 20_260
RUNS = 1_500

Reader = Callable[[str], list[Line] | None]


def _known(op: str, our: tuple[str, ...], their: tuple[str, ...]) -> str | None:
    """The listed difference that explains these two readings, or None."""
    if any(word.startswith("[") for word in our):
        return "text after a JSON list"
    text = "".join(our)
    if op in ("ADD", "COPY") and (set(text) & set("\"'`\\") or not text.isascii()):
        return "quotes and blanks in COPY and ADD"
    return None


def _compare(texts: list[str], name: str, read: Reader, counts: Counter[str]) -> None:
    for text in texts:
        mine = ours(text) if read is older_buildkit else without_triggers(ours(text))
        theirs = read(text)
        if mine is None or theirs is None:
            counts["both refuse" if mine == theirs else "we refuse" if theirs else "refuses"] += 1
            assert mine is None, f"{name} refuses what we read: {text!r}"
            continue
        if mine == theirs:
            counts["agree"] += 1
            continue
        assert len(mine) == len(theirs), f"{name} reads other lines: {text!r}"
        for a, b in zip(mine, theirs, strict=True):
            if a != b:
                assert a[:3] == b[:3], f"{name} reads another line: {a} {b} in {text!r}"
                reason = _known(a[0], a[3], b[3])
                assert reason, f"{name} reads other words: {a} {b} in {text!r}"
                counts[reason] += 1


READERS = [
    pytest.param("dockerfile", older_buildkit, id="dockerfile"),
    pytest.param("e2b", recent_buildkit, id="e2b"),
]


@pytest.mark.parametrize(("name", "read"), READERS)
def test_generated_files_read_the_same(name: str, read: Reader) -> None:
    """Files without mistakes: every line and every word agree."""
    maker = Maker(SEED)
    counts: Counter[str] = Counter()
    _compare([maker.dockerfile() for _ in range(RUNS)], name, read, counts)

    print(f"{RUNS} run, seed {SEED}, agree with {name} {counts['agree']}")
    assert counts["agree"] == RUNS


@pytest.mark.parametrize(("name", "read"), READERS)
def test_scrambled_files_read_the_same(name: str, read: Reader) -> None:
    """Files with mistakes: what both accept agrees, but for the listed differences."""
    maker = Maker(SEED + 1)
    counts: Counter[str] = Counter()
    # The compiled oracle takes a NUL for the end of the file.
    texts = [maker.scrambled().replace("\0", "") for _ in range(RUNS)]
    _compare(texts, name, read, counts)

    print(f"{RUNS} run, seed {SEED + 1}, {name}: {dict(counts)}")
    assert counts["agree"] > RUNS / 8


@pytest.mark.parametrize(("name", "read"), READERS)
def test_scenario_files_read_the_same(name: str, read: Reader) -> None:
    """The Dockerfiles of all scenarios agree, but for features younger than an oracle."""
    texts = sorted({text for _, _, text, _ in dockerfiles()})
    counts: Counter[str] = Counter()
    _compare(texts, name, read, counts)

    print(f"{len(texts)} run, agree with {name} {counts['agree']}")
    assert counts["agree"] == len(texts)


ATOMS = ["$", "{", "}", "a", "b", "c", "d", "u", ":", "-", "+", "?", "#", "%", "/", "//", "*", "."]
ATOMS += ["\\", '"', "'", " ", "  ", "<", "<<", "x", "`", "##", "%%", "$a", "${a", "${c", "${d/"]
ATOMS += ["${a#", "${u:-", "\n", "\u3000", "é", "$1", "$@"]
ENV = {"a": "foo.bar.txt", "b": "", "c": "x y  z", "d": "a/b/c\nd/e", "e1": "*?\\"}


def test_expansion_agrees_with_e2b() -> None:
    """Texts and words of random words, in all modes, but for two faults of the oracle.

    It makes a word of `""`, and replaces an empty match right after another match.
    """
    chance = random.Random(SEED)
    runs = 20_000
    agree = listed = 0
    for _ in range(runs):
        word = "".join(chance.choice(ATOMS) for _ in range(chance.randint(1, 14)))
        escape = chance.choice("\\\\`")
        modes = [chance.random() < share for share in (0.8, 0.3, 0.3, 0.3)]
        lexer = e2b_dockerfile_utils.ShellLex(
            escape,
            skip_process_quotes=not modes[0],
            raw_quotes=modes[1],
            raw_escapes=modes[2],
            skip_unset_env=modes[3],
            env=ENV,
        )
        try:
            theirs = (lexer.process_word(word), [w for w in lexer.process_words(word) if w])
        except ValueError:
            theirs = None
        try:
            result = expand(
                word,
                ENV,
                escape=escape,
                quotes=modes[0],
                keep_quotes=modes[1],
                keep_escapes=modes[2],
                keep_unset=modes[3],
            )
            mine = (result.text, list(result.words))
        except DockerfileError:
            mine = None
        if mine == theirs:
            agree += 1
        else:
            listed += 1
            assert "//" in word, (word, escape, modes, mine, theirs)
            assert "*" in word, (word, escape, modes, mine, theirs)

    print(f"{runs} run, seed {SEED}, agree with e2b {agree}, listed differences {listed}")
    assert agree > runs * 0.999
