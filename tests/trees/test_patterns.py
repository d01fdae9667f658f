"""Ignore files, exclusions and globs: moby's rules, at a cost that is flat in their number."""

from __future__ import annotations

import random
import sys
import time
import warnings
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layercache._base.paths import clean
from layercache.errors import DockerfileError, UsageError
from layercache.trees.patterns import Glob, Ignore, has_wildcards

CASES = [
    # text, path, ignored
    ("*.log", "a.log", True),
    ("*.log", "sub/a.log", False),
    ("**/*.log", "sub/deep/a.log", True),
    ("**/*.log", "a.log", True),
    ("sub/*", "sub", False),
    ("sub/*", "sub/x/y", True),
    ("sub/**", "sub", False),
    ("sub/**", "sub/x", True),
    ("node_modules", "node_modules/m/x.js", True),
    ("node_modules", "a/node_modules", False),
    ("/rooted/", "rooted/x", True),
    ("./a/../b//c/", "b/c", True),
    ("dir\n!dir/file", "dir/file", False),
    ("dir\n!dir/file", "dir/other", True),
    ("!a.txt\n*.txt", "a.txt", True),
    ("*\n!a.txt", "a.txt", False),
    ("*\n!a.txt", "sub/a.txt", True),
    ("**\n!**/*.txt", "sub/a.txt", False),
    ("**\n!**/*.txt", "sub/a.log", True),
    ("**/deep\n!sub/deep/c.log", "sub/deep/c.log", False),
    ("**/deep\n!sub/deep/c.log", "sub/deep/d.log", True),
    # A rule that changes nothing at the parent is not inherited from it (moby's walk).
    ("a\n!a/b\na", "a/b", False),
    ("\ufeffb.log", "b.log", True),
    ("b.log\r\nc.log\r\n", "c.log", True),
    ("# b.log", "# b.log", False),
    ("  # b.log", "# b.log", True),
    ("\\#x", "#x", True),
    ("  padded\t", "padded", True),
    ("! spaced\n", "spaced", False),
    ("*\n! spaced", "spaced", False),
    (".", "a", False),
    ("..", "a", False),
    ("/", "a", False),
    ("A", "a", False),
    ("?.txt", "é.txt", True),
    ("??.txt", "é.txt", False),
    ("[bc].log", "b.log", True),
    ("x[^0-9].md", "xa.md", True),
    ("x[^0-9].md", "x1.md", False),
    ("x[^0-9]y", "x/y", True),  # brackets read a slash, in moby and in filepath.Match
    ("\\*", "*", True),
    ("\\*", "a", False),
    ("a\\b", "ab", True),
    ("\\d", "d", True),
    ("\\d", "1", False),
    ("a|b*", "b", False),
    ("*.{a,b}", "x.{a,b}", True),
    ("[*]", "*", True),
    ("[*]", "x", False),
    ("**foo", "xfoo", True),
    ("**foo", "a/xfoo", True),
    ("**fo?", "xfoo", False),
    ("foo**", "foobar/x", True),
    ("a**b", "ax/yb", False),
    ("a**b", "ax/b", True),
    ("a/**/b", "a/b", True),
    ("a/**/b", "a/x/y/b", True),
    ("**", "anything/at/all", True),
    ("a**", "a\nb", True),
    ("a?**", "ax\nb", False),  # `.` of a regular expression stops at a line end
]


@pytest.mark.parametrize(("text", "path", "ignored"), CASES)
def test_ignore_rules(text: str, path: str, ignored: bool) -> None:
    """Each rule of the ignore file decides as the builder was seen to."""
    assert Ignore.parse(text).matches(path) == ignored


def test_bytes_that_are_no_text() -> None:
    """Patterns and paths may hold any bytes; an undecodable one is one character."""
    ignore = Ignore.parse(b"\xff?.log\n*.\xfe")

    assert ignore.matches(b"\xff\xfd.log")
    assert ignore.matches(b"x.\xfe")
    assert not ignore.matches(b"x.\xfd")


@pytest.mark.parametrize("text", ["a\n[", "a\n[]", "a\n[a", "a\n[a-]", "a\n\\", "a\n!", "a\n[b-a]"])
def test_malformed_lines_are_errors_with_their_number(text: str) -> None:
    """A malformed pattern is refused with its line; nothing is matched with the rest."""
    with pytest.raises(DockerfileError) as caught:
        Ignore.parse(text, "my.dockerignore")

    assert caught.value.line == 2
    assert caught.value.problems[0].name == "my.dockerignore"


def test_all_malformed_lines_are_told_at_once() -> None:
    """One parse reports every mistake."""
    with pytest.raises(DockerfileError) as caught:
        Ignore.parse("[\nok\n!\n\\")

    assert [problem.line for problem in caught.value.problems] == [1, 3, 4]


def test_malformed_options_are_usage_errors() -> None:
    """--exclude and globs outside a file raise `UsageError` naming the pattern."""
    with pytest.raises(UsageError, match=r"\[a"):
        Ignore.of(["ok", "[a"])
    with pytest.raises(UsageError, match="trailing"):
        Glob("x\\")


@pytest.mark.parametrize(
    "text",
    ["x" * (1 << 20) + "x", "x" * 70_000, "x\n" * 20_001, "a" * 5000, "[^a]" * 40],
    ids=["bytes", "line", "rules", "pattern", "breaks"],
)
def test_sizes_are_bounded(text: str) -> None:
    """Absurd ignore files are refused, not worked through."""
    with pytest.raises((UsageError, DockerfileError)):
        Ignore.parse(text)


def test_reason_names_the_deciding_line() -> None:
    """`reason` gives the last rule that matched, with its line."""
    ignore = Ignore.parse("# head\n*.log\nsub\n!sub/keep\n")

    assert ignore.reason(b"sub/x") is not None
    assert (r := ignore.reason(b"sub/x")) is not None
    assert r.line == 3
    assert ignore.reason(b"sub/keep") is None


@pytest.mark.parametrize(
    ("text", "path", "prunable"),
    [
        ("node_modules", b"node_modules", True),
        ("node_modules\n!node_modules/keep", b"node_modules", False),
        ("node_modules\n!node_modules/keep", b"node_modules/other", True),
        ("!node_modules/keep\nnode_modules", b"node_modules", True),
        ("*\n!src/**/*.py", b"docs", True),
        ("*\n!src/**/*.py", b"src", False),
        ("**\n!**/*.txt", b"any/where", False),
        ("a", b"b", False),
    ],
)
def test_prunable(text: str, path: bytes, prunable: bool) -> None:
    """An ignored directory is entered only while an exception may keep something below."""
    assert Ignore.parse(text).state(path).prunable == prunable


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("*.txt", "a.txt", True),
        ("*.txt", "x/a.txt", False),
        ("**/*.txt", "x/a.txt", True),
        ("**/*.txt", "x/y/a.txt", False),
        ("**/*.txt", "a.txt", False),
        ("a?.txt", "a1.txt", True),
        ("a[2-9].txt", "a1.txt", False),
        ("arr[[]0].txt", "arr[0].txt", True),
        ("dir/*/x", "dir/a/x", True),
    ],
)
def test_globs(pattern: str, path: str, matches: bool) -> None:
    """Without --parents `**` is `*`, and nothing crosses a directory."""
    state = Glob(pattern).start
    for name in path.encode().split(b"/"):
        state = state[name]

    assert state.ignored == matches


def test_wildcards_and_cleaning() -> None:
    """An escaped wildcard is none; cleaning is Go's."""
    assert not has_wildcards(r"a\*b\[")
    assert has_wildcards(r"a\\*")
    assert clean("/a/../../b/.//c/") == "/b/c"
    assert clean("../a/..") == ".."
    assert clean("") == "."


# -- against an oracle ------------------------------------------------------------------------

NAMES = ["a", "b", "ab", "a.b", "x", "é", "aab", "b.a", "ba", "*", "c", "a\nb"]
PIECES = ["a", "b", "ab", "a.b", "*", "?", "**", "[ab]", "[^a]", "[a-c]", "\\a", "\\*", ".", "x"]


def _pattern(source: random.Random) -> str:
    parts = []
    for _ in range(source.randint(1, 4)):
        if source.random() < 0.4:
            parts.append(source.choice(["**", "a", "b", "*"]))
        else:
            parts.append("".join(source.choice(PIECES) for _ in range(source.randint(1, 3))))
    text = "/".join(parts)
    for share, before in ((0.1, "/"), (0.1, "./"), (0.1, "a/../"), (0.3, "!")):
        if source.random() < share:
            text = before + text
    # moby refuses "!" before what cleans away to the root; the oracle takes it.
    return text if clean(text.lstrip("!").strip()) not in ("/", ".") else "a"


def test_same_answers_as_the_oracle() -> None:
    """Random files and paths get the verdicts of an independent port of moby's matcher."""
    oracle = pytest.importorskip("e2b_dockerfile_utils.dockerignore")
    seed, began, run, refused = 20261124, time.monotonic(), 0, 0
    source = random.Random(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        while run < 60_000:
            patterns = [_pattern(source) for _ in range(source.randint(1, 6))]
            try:
                expected = oracle.PatternMatcher(patterns)
            except ValueError:
                refused += 1
                with pytest.raises(DockerfileError):
                    Ignore.parse("\n".join(patterns))
                continue
            actual = Ignore.parse("\n".join(patterns))
            for _ in range(20):
                path = "/".join(source.choice(NAMES) for _ in range(source.randint(1, 5)))
                run += 1
                assert expected.matches(path) == actual.matches(path), (patterns, path)
    print(f"{run} run, seed {seed}, wall {time.monotonic() - began:.1f} ({refused} refused)")


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32))
def test_settled_means_settled(seed: int) -> None:
    """Where a state says that all below has one answer, asking gives that answer."""
    source = random.Random(seed)
    try:
        ignore = Ignore.parse("\n".join(_pattern(source) for _ in range(source.randint(1, 5))))
    except DockerfileError:
        return
    for _ in range(20):
        parts = [source.choice(NAMES) for _ in range(source.randint(2, 5))]
        cut = source.randint(1, len(parts) - 1)
        above = ignore.state("/".join(parts[:cut]).encode())
        # A fresh machine, so that nothing is answered from what the state remembers.
        below = Ignore(ignore.rules)
        if above.settled:
            state = below.start
            for part in parts:
                dict.clear(state)
                state = state[part.encode()]
            assert state.ignored == above.ignored


# -- cost ---------------------------------------------------------------------------------------


def _calls(work: Callable[[], object]) -> int:
    """How many calls of functions of the matcher `work` makes."""
    count = 0

    def watch(frame: object, event: str, _: object) -> None:
        nonlocal count
        name = frame.f_code.co_filename  # type: ignore[attr-defined]
        if event == "call" and any(
            module in name for module in ("patterns.py", "automaton.py", "components.py")
        ):
            count += 1

    sys.setprofile(watch)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def _asked(rules: int) -> int:
    text = "\n".join(f"**/*.ext{n}\n/lib/dir{n}/\n!keep{n}/*.txt" for n in range(rules))
    ignore = Ignore.parse(text)
    paths = [f"src/pkg{n % 50}/name{n}.py".encode() for n in range(500)]
    ignore.matches(paths[0])
    return _calls(lambda: [ignore.matches(path) for path in paths])


def test_cost_of_a_path_is_flat_in_the_number_of_patterns() -> None:
    """A hundred times the patterns make no more calls for the same paths."""
    assert _asked(300) <= _asked(3) * 1.1


def test_cost_of_a_name_seen_before_is_one_lookup() -> None:
    """Asking the same names again calls nothing but `matches` itself."""
    ignore = Ignore.parse("**/*.log\n!**/keep.log")
    paths = [f"d{n}/x.log".encode() for n in range(100)]
    for path in paths:
        ignore.matches(path)

    assert _calls(lambda: [ignore.matches(path) for path in paths]) <= 500


def test_hostile_patterns_end() -> None:
    """Nested stars against a long name that almost matches are no exponential search."""
    ignore = Ignore.parse("\n".join("*a" * n + "b" for n in range(1, 60)) + "\n" + "**/a/" * 60)

    assert not ignore.matches("a" * 255)
    assert ignore.matches("/".join(["a"] * 60))
