"""Random shell scripts, random trees for them, and random changes to those trees.

Everything that a script does is a function of the tree: no clock (times of `ro/` only, where
nothing is written), no order of directories (sorted, or one at a time), no numbers of inodes.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

__all__ = ["Files", "mutate", "random_files", "random_script"]

Entry = bytes | tuple[str, bytes | str]
Files = dict[str, Entry]
"""Path → content, or ("link", target), ("0755", content); a directory is what is above."""

_DIRECTORIES: Final = ("", "a/", "b/", "a/x/", "a/y/", "b/z/", "ro/", "ro/k/")
_NAMES: Final = ("one", "two", "three", "f.txt", "g.txt", "run.sh", "list")
_WORDS: Final = ("alpha", "beta", "gamma", "delta", "one", "two", "a/x/one", "b", "1", "22")


def _content(chance: random.Random) -> bytes:
    if chance.random() < 0.1:
        return b""
    lines = [chance.choice(_WORDS) for _ in range(chance.randint(1, 5))]
    return ("\n".join(lines) + "\n").encode()


def random_files(chance: random.Random) -> Files:
    """A small tree, with scripts, links and empty files."""
    files: Files = {}
    for directory in _DIRECTORIES:
        for name in _NAMES:
            if chance.random() < 0.45:
                files[directory + name] = _random_file(chance, directory, name)
    files.setdefault("ro/one", b"always\n")
    return files


def _random_file(
    chance: random.Random, directory: str, name: str
) -> bytes | tuple[str, bytes | str]:
    if name == "run.sh":
        return "0755", b"#!/bin/sh\ncat " + chance.choice((b"$0", b"a/one", b"b/two")) + b"\n"
    draw = chance.random()
    if draw < 0.12:
        target = chance.choice(("one", "two", "../a/one", "/w/b/two", "x", "absent", "a", "."))
        return "link", target
    if draw < 0.2:
        return chance.choice(("0600", "0755", "0444")), _content(chance)
    return _content(chance)


def mutate(chance: random.Random, files: Files) -> Files:
    """`files` with one to three changes."""
    changed = dict(files)
    for _ in range(chance.randint(1, 3)):
        path = chance.choice(sorted(changed)) if changed else "one"
        draw = chance.randint(0, 8)
        old = changed.get(path, b"")
        if draw == 0:
            changed[path] = _content(chance)
        elif draw == 1 and isinstance(old, bytes) and old:
            changed[path] = old[:-1] + bytes([old[-1] ^ 1])  # as long as before
        elif draw == 2:
            directory = chance.choice(_DIRECTORIES)
            name = chance.choice((*_NAMES, "new"))
            if not any(p.startswith(directory + name + "/") for p in changed):
                changed[directory + name] = _random_file(chance, directory, name)
        elif draw == 3:
            changed.pop(path, None)
        elif draw == 4 and isinstance(old, bytes):
            changed[path] = chance.choice(("0600", "0755", "0444")), old
        elif draw == 5:
            changed[path] = "link", chance.choice(("one", "absent", "../b/two", "/w/a"))
        elif draw == 6:
            moved = path + ".moved"
            changed[moved] = changed.pop(path, b"")
        elif draw == 7:
            changed.pop(path, None)
            changed[path + "/inner"] = _content(chance)
        else:
            changed[chance.choice(_DIRECTORIES) + "extra"] = _content(chance)
    return _consistent(changed)


def _consistent(files: Files) -> Files:
    """Without files beneath files."""
    found: Files = {}
    for path in sorted(files):
        parts = path.split("/")
        if not any("/".join(parts[:n]) in found for n in range(1, len(parts))):
            found[path] = files[path]
    return found


# -- operations ---------------------------------------------------------------------------------


def _any(chance: random.Random) -> str:
    return chance.choice(_DIRECTORIES) + chance.choice((*_NAMES, "absent"))


def _dir(chance: random.Random) -> str:
    return chance.choice(("a", "b", "a/x", "a/y", "b/z", "ro", ".", "ro/k"))


def _place(chance: random.Random) -> str:
    """Where something is written: never in `ro`."""
    return chance.choice(("", "a/", "b/", "a/x/", "out/", "out/deep/")) + chance.choice(
        ("one", "two", "made", "f.txt")
    )


def _read(chance: random.Random) -> str:
    return "ro/" + chance.choice((*_NAMES, "k/one", "k/two", "absent"))


OPERATIONS: Final[tuple[Callable[[random.Random], str], ...]] = (
    lambda c: f"cat {_any(c)}",
    # All is read before anything is written: it may be the same file, which would grow for ever.
    lambda c: f'a=$(cat {_any(c)} {_any(c)}); echo "$a" > {_place(c)}',
    lambda c: f"head -n 1 {_any(c)}",
    lambda c: f"tail -n 2 {_any(c)}",
    lambda c: f"wc -c < {_any(c)}",
    lambda c: f"wc -l {_any(c)} {_any(c)}",
    lambda c: f"sort {_any(c)} > {_place(c)}",
    lambda c: f'a=$(tr a-z A-Z < {_any(c)}); echo "$a" >> {_place(c)}',
    lambda c: f"sed s/a/X/ {_any(c)}",
    lambda c: f"sed -i s/a/X/ {_place(c)}",
    lambda c: f"grep -c a {_any(c)}",
    lambda c: f"grep -rl alpha {_dir(c)} 2>/dev/null | sort",
    lambda c: f"grep -q beta {_any(c)} && echo yes || echo no",
    lambda c: f"cut -c1-3 {_any(c)}",
    lambda c: f"awk '{{ print NR, $1 }}' {_any(c)}",
    lambda c: f"md5sum {_any(c)}",
    lambda c: f"od -c {_any(c)} | head -n 2",
    lambda c: f"cmp {_any(c)} {_any(c)} && echo same",
    lambda c: f"diff {_any(c)} {_any(c)} > /dev/null && echo equal",
    lambda c: f"base64 {_any(c)}",
    lambda c: f"dd if={_any(c)} bs=1 skip=1 count=3 2>/dev/null",
    lambda c: f"test -e {_any(c)} && echo there",
    lambda c: f"test -f {_any(c)} && echo file",
    lambda c: f"test -d {_any(c)} && echo directory",
    lambda c: f"test -L {_any(c)} && echo link",
    lambda c: f"test -s {_any(c)} && echo more",
    lambda c: f"test -x {_any(c)} && echo runs",
    lambda c: f"test {_read(c)} -nt {_read(c)} && echo newer",
    lambda c: f"stat -c %Y {_read(c)}",
    lambda c: f"stat -c '%a %u %g %F %s' {_read(c)}",
    lambda c: f"find ro -newer {_read(c)} | sort",
    lambda c: f"ls {_dir(c)}",
    lambda c: f"ls -a {_dir(c)}",
    lambda c: f"echo {_dir(c)}/*",
    lambda c: f"echo {_dir(c)}/*.txt",
    lambda c: f"for f in {_dir(c)}/*; do test -f $f && echo $f; done",
    lambda c: f"for f in {_dir(c)}/o*; do cat $f; done",
    lambda c: f"find {_dir(c)} -type f | sort",
    lambda c: f"find {_dir(c)} -name '*.txt' | sort | xargs cat",
    lambda c: f"find {_dir(c)} -type l | sort",
    lambda c: f"find {_dir(c)} -size 0c | sort",
    lambda c: f"readlink {_any(c)}",
    lambda c: f"realpath {_any(c)}",
    lambda c: f"cp {_any(c)} {_place(c)}",
    lambda c: f"cp -a {_any(c)} out/",
    lambda c: f"cp -r {c.choice(('a', 'b', 'a/x', 'ro'))} out/copy{c.randint(0, 9)}",
    lambda c: f"mv {_any(c)} out/",
    lambda c: f"mv {_place(c)} {_place(c)}",
    lambda c: f"ln -s {_any(c)} {_place(c)}",
    lambda c: f"ln {_place(c)} out/hard{c.randint(0, 9)}",
    lambda c: f"rm -f {_place(c)}",
    lambda c: f"rm -rf {c.choice(('a/x', 'b/z', 'out/deep', 'a'))}",
    lambda c: "rm -rf b/z; mkdir -p b/z; echo n > b/z/fresh",
    lambda c: f"rmdir {c.choice(('a/y', 'b/z', 'out/deep'))}",
    lambda c: f"mkdir -p {c.choice(('a/x/deep', 'out/deep', 'b/z', 'c'))}",
    lambda c: f"chmod {c.choice(('644', '600', '755'))} {_place(c)}",
    lambda c: f"chown {c.choice(('0', '1000:1000', 'app'))} {_place(c)}",
    lambda c: f"touch {_place(c)}",
    lambda c: f"truncate -s {c.choice(('0', '3', '9'))} {_place(c)}",
    lambda c: f"echo {c.choice(_WORDS)} > {_place(c)}",
    lambda c: f"echo {c.choice(_WORDS)} >> {_place(c)}",
    lambda c: f"printf '{c.choice(_WORDS)}\\n' | tee {_place(c)}",
    lambda c: f"test -e {_any(c)} || echo made > {_place(c)}",
    lambda c: f"sh {_any(c)}",
    lambda c: f"./{c.choice(('', 'a/', 'b/', 'ro/'))}run.sh",
    lambda c: f"cd {_dir(c)} && cat one; cd /w",
    lambda c: f"PATH=/w/{_dir(c)}:$PATH run.sh",
    lambda c: f". ./{_any(c)}",
    lambda c: f"while read word; do test -e $word && echo $word; done < {_any(c)}",
    lambda c: f"xargs -n 1 basename < {_any(c)}",
    lambda c: f"gzip -n -c {_any(c)} | wc -c",
    lambda c: f"tar cf - {_any(c)} 2>/dev/null | tar tf -",
    lambda c: f"install -m 755 {_any(c)} {_place(c)}",
    lambda c: f"uniq {_any(c)}",
    lambda c: f"mkfifo out/pipe{c.randint(0, 99)}",
    # All is read before the other is opened: it may be the same file.
    lambda c: f'cat 2>/dev/null < {_any(c)} | (a=$(cat); echo "$a" > {_place(c)}) 2>/dev/null',
)


def random_script(chance: random.Random) -> str:
    """One to four operations; none of them failing fails the script."""
    parts = [chance.choice(OPERATIONS)(chance) for _ in range(chance.randint(1, 4))]
    return "cd /w; mkdir -p out; " + "; ".join(f"( {part} )" for part in parts) + "; true"
