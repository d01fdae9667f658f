"""Secrets stay out of output however it is cut into pieces."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from layercache.executors.redaction import MASK, Redactor, masks_of

SECRET = b"s3cret-t0ken"
PIECES = st.lists(st.sampled_from([SECRET, b"s3cret", b"-t0ken", b"s", b"s3", b"\n", b"hello"]))


@given(PIECES, st.lists(st.integers(0, 200)))
def test_any_cutting_gives_the_same_and_no_secret(pieces: list[bytes], cuts: list[int]) -> None:
    """The stream equals the whole text with the secret replaced, wherever it was cut."""
    text = b"".join(pieces)
    redactor = Redactor(masks_of([SECRET]))
    edges = sorted({min(cut, len(text)) for cut in cuts} | {0, len(text)})
    shown = b"".join(redactor.feed(text[start:end]) for start, end in pairwise(edges))
    shown += redactor.end()

    assert text.replace(SECRET, MASK) == shown


@given(st.data())
def test_the_longest_secret_counts_wherever_it_is_cut(data: st.DataObject) -> None:
    """A line that is a mask of its own, or another secret, does not uncover the rest."""
    secret = b"first-line-of-it\nshort\nmore"
    masks = masks_of([secret, b"first-line-of-it\nsh", b"more-or-less", b"ore"])
    alphabet = st.sampled_from([secret, b"first-line-of-it\n", b"short", b"more-or-", b"m", b"x"])
    text = b"".join(data.draw(st.lists(alphabet)))
    cuts = data.draw(st.lists(st.integers(0, len(text))))
    whole = Redactor(masks)
    expected = whole.feed(text) + whole.end()
    redactor = Redactor(masks)
    edges = sorted({0, len(text), *cuts})
    shown = b"".join(redactor.feed(text[start:end]) for start, end in pairwise(edges))
    shown += redactor.end()

    assert (shown, secret in shown) == (expected, False)
    assert text.count(secret) <= shown.count(MASK)


def test_a_secret_in_two_pieces_whose_first_line_is_long() -> None:
    """Its short lines are masked with it, though they are no masks alone."""
    redactor = Redactor(masks_of([b"user: somebody-else\npin 1234\n"]))
    shown = redactor.feed(b"> user: somebody-else\n") + redactor.feed(b"pin 1234\nend\n")

    assert shown == b"> ***\nend\n"


def test_ordinary_output_is_not_held_back() -> None:
    """A line that can't begin a secret is shown at once."""
    redactor = Redactor(masks_of([SECRET]))

    assert redactor.feed(b"compiling\n") == b"compiling\n"


def test_long_lines_of_a_key_count_alone() -> None:
    """A private key is also recognised line by line; short lines are ordinary words."""
    key = b"-----BEGIN KEY-----\nbm90IGEga2V5IGF0IGFsbA==\nab\n-----END KEY-----\n"
    redactor = Redactor(masks_of([key]))

    assert redactor.feed(b"> bm90IGEga2V5IGF0IGFsbA== ab\n") == b"> *** ab\n"


def test_short_secrets_don_t_garble_everything() -> None:
    """A value of one or two letters can't be told from text and is no mask."""
    assert masks_of([b"a", b"", b"\n"]) == ()


@given(
    st.lists(st.text("ab", min_size=1, max_size=12).map(str.encode), min_size=1, max_size=3),
    st.text("abc", max_size=60).map(str.encode),
    st.lists(st.integers(0, 60), max_size=5),
)
def test_masks_that_repeat_themselves(masks: list[bytes], text: bytes, cuts: list[int]) -> None:
    """What is held back is exactly what may still become a mask, wherever the text is cut."""
    redactor, whole = Redactor(masks), Redactor(masks)
    edges = sorted({0, len(text), *(min(cut, len(text)) for cut in cuts)})
    shown = b"".join(redactor.feed(text[start:end]) for start, end in pairwise(edges))
    last = redactor.end()
    held = [
        size for size in range(1, len(text) + 1) if any(m.startswith(text[-size:]) for m in masks)
    ]
    assert len(last) <= max(held, default=0) * len(MASK)
    assert shown + last == whole.feed(text) + whole.end()
    assert not any(mask in shown + last for mask in masks)


def test_a_long_mask_that_repeats_itself_is_looked_for_in_linear_time() -> None:
    """A megabyte of one letter against a secret of that letter: compared again from each place,
    this would be half a million million comparisons."""
    size = 1 << 20
    redactor = Redactor([b"a" * size])
    text = b"a" * (size - 2) + b"b"
    assert redactor.feed(text) == text
