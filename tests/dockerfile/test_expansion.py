"""Words expand as the Dockerfile reference and BuildKit say, within bounds."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layercache.dockerfile.syntax.expansion import expand, process_word, process_words
from layercache.dockerfile.syntax.limits import Budget, RecipeLimits
from layercache.dockerfile.syntax.shell_patterns import Pattern
from layercache.dockerfile.syntax.words import literal
from layercache.errors import DockerfileError

ENV = {"A": "foo", "EMPTY": "", "PATH": "/usr/local/bin:/bin", "F": "a.b.tar.gz", "S": "x  y"}


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("plain", "plain"),
        ("$A", "foo"),
        ("${A}bar", "foobar"),
        ("$UNSET.", "."),
        ("$", "$"),
        ("a$", "a$"),
        ("$A$A", "foofoo"),
        (r"\$A", "$A"),
        ("'$A'", "$A"),
        ('"$A"', "foo"),
        (r'"\$A \" \\ \n"', r'$A " \ \n'),
        ("''", ""),
        ("a'b'\"c\"", "abc"),
        ("${A:-x}", "foo"),
        ("${EMPTY:-x}", "x"),
        ("${EMPTY-x}", ""),
        ("${UNSET:-x}", "x"),
        ("${UNSET-x}", "x"),
        ("${UNSET:-$A}", "foo"),
        ("${UNSET:-${EMPTY:-${A}}}", "foo"),
        ("${UNSET:-'a b'}", "a b"),
        ("${A:+x}", "x"),
        ("${EMPTY:+x}", ""),
        ("${EMPTY+x}", "x"),
        ("${UNSET+x}", ""),
        ("${A:?bad}", "foo"),
        ("${EMPTY?bad}", ""),
        ("${PATH#*/}", "usr/local/bin:/bin"),
        ("${PATH##*/}", "bin"),
        ("${F%.*}", "a.b.tar"),
        ("${F%%.*}", "a"),
        ("${F#?}", ".b.tar.gz"),
        ("${F#b}", "a.b.tar.gz"),
        (r"${UNSET#\*}", ""),
        ("${F/./_}", "a_b.tar.gz"),
        ("${F//./_}", "a_b_tar_gz"),
        ("${F//./}", "abtargz"),
        ("${F//*/x}", "x"),
        ("${A///-}", "-f-o-o-"),
        (r"${PATH//\//:}", ":usr:local:bin::bin"),
        ("${F/$UNSET.b/}", "a.tar.gz"),
        ("a b  c", "a b  c"),
        ("trailing\\", "trailing"),
        ("$1x", "x"),
        ("${A%${UNSET:-oo}}", "f"),
    ],
)
def test_a_word_becomes(word: str, expected: str) -> None:
    """The forms of the reference, one by one."""
    assert process_word(word, ENV) == expected


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("a b", ["a", "b"]),
        ("  a\t b ", ["a", "b"]),
        ('"a b" c', ["a b", "c"]),
        (r"a\ b c", ["a b", "c"]),
        ("$S", ["x", "y"]),
        ('"$S"', ["x  y"]),
        ("p$S", ["px", "y"]),
        ('"" a', ["a"]),
        ("$EMPTY", []),
        ("${UNSET:-a b}", ["a", "b"]),
    ],
)
def test_words_split(word: str, expected: list[str]) -> None:
    """White space splits outside quotes, also where a variable brings it."""
    assert process_words(word, ENV) == expected


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("'open", "single quote"),
        ('"open', "double quote"),
        ("${", "missing '}'"),
        ("${A", "missing '}'"),
        ("${}", "bad substitution"),
        ("${:x}", "bad substitution"),
        ("${A:x}", "unsupported modifier (:x)"),
        ("${A^^}", "unsupported modifier (^)"),
        ("${A:-", "missing '}'"),
        ("${A/x}", "missing '/'"),
        ("${UNSET:?why}", "UNSET: why"),
        ("${EMPTY:?}", "is not allowed to be empty"),
        ("${UNSET?}", "is not allowed to be unset"),
        (r"${A#\x}", "invalid escape"),
    ],
)
def test_a_bad_word_is_refused(word: str, message: str) -> None:
    """The message says what is wrong and shows the word."""
    with pytest.raises(DockerfileError, match=re.escape(message)) as caught:
        process_word(word, ENV)

    assert caught.value.problems[0].source_line == word


def test_used_and_unset_variables_are_reported() -> None:
    """Variables in words that are not used in the end count, too."""
    result = expand("$A ${B:-$C} '$D' ${A:+$E}", ENV)

    assert result.used == {"A"}
    assert result.unset == {"B", "C", "E"}


def test_another_escape_character() -> None:
    """With the backtick, backslashes are plain and the backtick escapes."""
    assert process_word("c:\\x`$A", ENV, escape="`") == "c:\\x$A"


def test_quotes_can_be_plain() -> None:
    """In bodies of here-documents quotes mean nothing, variables and backslashes do."""
    assert process_word("'$A' \"\\$A\"", ENV, quotes=False) == "'foo' \"$A\""


@given(st.text(), st.sampled_from("\\`"))
def test_literal_is_taken_literally(text: str, escape: str) -> None:
    """Expanding `literal(text)` gives `text`, as one word."""
    assert process_word(literal(text, escape), ENV, escape=escape) == text
    assert process_words(literal(text, escape), ENV, escape=escape) == ([text] if text else [])


@given(st.text(alphabet="$\\{}'\"abA:-+?#%/*<` \n"))
def test_expansion_raises_nothing_else(word: str) -> None:
    """Any text expands or is refused with `DockerfileError`."""
    try:
        process_word(word, ENV)
    except DockerfileError:
        pass


# -- patterns ---------------------------------------------------------------------------------


def _regex(pattern: str, star: str) -> str:
    """The same pattern for `re`, which backtracks: fine for short ones."""
    translated = {"*": star, "?": "."}
    return "".join(translated.get(char, re.escape(char)) for char in pattern)


def _replace_like_go(pattern: str, value: str, replacement: str) -> str:
    out, copied, start = [], 0, 0
    while start <= len(value):
        match = re.compile(pattern).search(value, start)
        if match is None:
            break
        out.append(value[copied : match.start()])
        if match.end() > copied or match.start() == 0:
            out.append(replacement)
        copied = match.end()
        start = max(match.end(), start + 1)
    return "".join(out) + value[copied:]


def test_patterns_match_as_regular_expressions_do() -> None:
    """Prefixes and replacements equal those of an equivalent regular expression."""
    seed, runs = 7, 20_000
    chance = random.Random(seed)
    for _ in range(runs):
        text = "".join(chance.choice("ab*?\n") for _ in range(chance.randint(0, 6)))
        value = "".join(chance.choice("aab\n") for _ in range(chance.randint(0, 12)))
        pattern = Pattern.parse(text)
        for longest, star in ((False, ".*?"), (True, ".*")):
            match = re.match(_regex(text, star), value)
            expected = None if match is None else match.end()
            assert pattern.prefix(value, longest, Budget()) == expected, (text, value, longest)
        found = "".join(pattern.replace(value, "<>", True, Budget()))
        assert found == _replace_like_go(_regex(text, ".*"), value, "<>"), (text, value)
        once = "".join(pattern.replace(value, "<>", False, Budget()))
        assert once == re.sub(_regex(text, ".*"), "<>", value, count=1), (text, value)

    print(f"{runs} run, seed {seed}")


# -- bounds -----------------------------------------------------------------------------------


def _steps(word: str, env: dict[str, str] | None = None) -> int:
    budget = Budget()
    try:
        process_word(word, env or {}, budget=budget)
    except DockerfileError:
        pass
    return budget.used


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda n: ("$A" * n, {"A": "xy"}), id="many variables"),
        pytest.param(lambda n: ("${A:-" * 90 + "x" * n + "}" * 90, {}), id="deep"),
        pytest.param(lambda n: ("${A:-" * n, {}), id="never closed"),
        pytest.param(lambda n: ("${A//*x*/}", {"A": "a" * n}), id="stars without match"),
        pytest.param(lambda n: ("${A//*x*/-}", {"A": "ax" * n}), id="stars with match"),
        pytest.param(lambda n: ("${A//x*y/-}", {"A": "xyx\n" * n}), id="matches on many lines"),
        pytest.param(lambda n: ("${A///--}", {"A": "a" * n}), id="empty matches"),
        pytest.param(lambda n: ("${A##*a*a*a*b}", {"A": "a" * n}), id="longest prefix"),
        pytest.param(lambda n: ("${A%%a*a*a?b}", {"A": "a" * n}), id="longest suffix"),
        pytest.param(lambda n: ("'" + "x" * n + "'" + '"' + "y" * n + '"', {}), id="quotes"),
        pytest.param(lambda n: ("\\" * n, {}), id="escapes"),
        pytest.param(lambda n: ("<<" * n, {}), id="less than"),
    ],
)
def test_work_is_linear(make: object) -> None:
    """Four times the input takes at most about four times the steps."""
    assert callable(make)
    small, large = _steps(*make(1_000)), _steps(*make(4_000))

    assert large <= 4.2 * small + 1_000


def test_doubling_stops_at_the_bound() -> None:
    """A variable that doubles itself is refused before it fills memory."""
    env, budget = {"A": "x" * 64}, Budget()

    def double() -> None:
        for _ in range(40):
            env["A"] = process_word("$A$A", env, budget=budget)

    with pytest.raises(DockerfileError, match="longer than"):
        double()

    assert len(env["A"]) <= RecipeLimits().word_chars
    assert budget.used < 20 * RecipeLimits().word_chars


def test_a_budget_bounds_many_words_together() -> None:
    """Words that are each within their bound can't add up without end."""
    env, budget = {"A": "x" * 1_000}, Budget(100_000)

    def repeat() -> None:
        for _ in range(1_000):
            process_word("$A", env, budget=budget)

    with pytest.raises(DockerfileError, match="steps"):
        repeat()

    assert budget.used < 110_000


def test_growing_by_replacement_stops_at_the_bound() -> None:
    """`${a//x/…}` is measured before it is made."""
    env = {"A": "x" * 10_000, "R": "y" * 10_000}

    with pytest.raises(DockerfileError, match="longer than"):
        process_word("${A//x/$R}", env)


def test_nesting_is_bounded() -> None:
    """Deep nesting is refused with a message, never a `RecursionError`."""
    with pytest.raises(DockerfileError, match="nest deeper"):
        process_word("${A:-" * 100_000 + "}" * 100_000, {})


def test_patterns_are_bounded() -> None:
    """Long patterns are refused, alone and together with a long value."""
    with pytest.raises(DockerfileError, match="pattern is longer"):
        process_word("${A#" + "a" * 5_000 + "}", {"A": "x"})
    with pytest.raises(DockerfileError, match="too long for this pattern"):
        process_word("${A//" + "a?" * 1_000 + "/}", {"A": "a" * 500_000})
