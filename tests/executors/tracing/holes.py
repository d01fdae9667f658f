"""Directed cases: a script, files, and a change after which the script gives something else.

Each was, or could have been, a way for a trace to say too little.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import attrs

from tests.executors.tracing.fuzz import context, differences, recipe
from tests.executors.tracing.machines import Machine
from tests.executors.tracing.scripts import Files

__all__ = ["CASES", "Case", "wrong_hits"]


@attrs.frozen
class Case:
    """`script` runs in /w on `files`, then on `changed`; with `hit` it must be reused."""

    name: str
    script: str
    files: Files
    changed: Files
    hit: bool = False
    head: str = ""
    """Instructions before the script."""

    @property
    def text(self) -> str:
        if self.head:
            return f"FROM base\nCOPY . /w\n{self.head}\nWORKDIR /w\nRUN {self.script}\n"
        return recipe("cd /w; " + self.script)


CASES: Final = (
    Case("written as it was", "printf abc > f", {"f": b"abc"}, {"f": b"xyz"}),
    Case(
        "written as it was, with a time that tells nothing",
        "echo abc > f; touch -d @1500000000 f",
        {"f": b"1"},
        {"f": b"1", "yes": b""},
        head="RUN cd /w; echo abc > f; test -e yes && echo xyz > f; rm -f yes; "
        "touch -d @1500000000 f",
    ),
    Case(
        "an opaque directory over an empty one",
        "rm -rf d; mkdir d",
        {"f": b"1"},
        {"f": b"1", "d/g": b"1"},
    ),
    Case(
        "copied over as it was",
        "cp g f",
        {"f": b"abc", "g": b"abc"},
        {"f": b"xyz", "g": b"abc"},
    ),
    Case("mode set as it was", "chmod 644 f", {"f": b"1"}, {"f": ("0600", b"1")}),
    Case("owner set as it was", "chown 0 f", {"f": b"1"}, {"f": b"1", "g": b"2"}, hit=True),
    Case("an empty file grows", "cat f > /out", {"f": b""}, {"f": b"1"}),
    Case("a size alone", "find . -size 0c | sort > /out", {"f": b""}, {"f": b"1"}),
    Case("a size of a link's target", "find -L . -size -2c > /out", {"f": b"1"}, {"f": b"123"}),
    Case("bytes of the same size", "cat f > /out", {"f": b"12"}, {"f": b"21"}),
    Case("a name in a directory", "echo * > /out", {"f": b"1"}, {"f": b"1", "g": b"2"}),
    Case(
        "a name in a directory beneath",
        "echo d/* > /out",
        {"d/f": b"1"},
        {"d/f": b"1", "d/g": b""},
    ),
    Case("a name goes", "echo * > /out", {"f": b"1", "g": b"2"}, {"f": b"1"}),
    Case("a type in a listing", "find . -type d > /out", {"f": b"1"}, {"f/g": b"1"}),
    Case("a name that is tried", "test -e g && echo yes > /out; true", {"f": b"1"},
         {"f": b"1", "g": b"1"}),
    Case("a program found earlier", "PATH=/w/a:/w/b:$PATH; prog > /out",
         {"b/prog": ("0755", b"#!/bin/sh\necho b\n")},
         {"b/prog": ("0755", b"#!/bin/sh\necho b\n"), "a/prog": ("0755", b"#!/bin/sh\necho a\n")}),
    Case("a program that may run now", "PATH=/w/a:/w/b:$PATH; prog > /out",
         {"b/prog": ("0755", b"#!/bin/sh\necho b\n"), "a/prog": b"#!/bin/sh\necho a\n"},
         {"b/prog": ("0755", b"#!/bin/sh\necho b\n"), "a/prog": ("0755", b"#!/bin/sh\necho a\n")}),
    Case("an interpreter", "./s > /out",
         {"s": ("0755", b"#!/w/i\n"), "i": ("0755", b"#!/bin/sh\necho 1\n")},
         {"s": ("0755", b"#!/w/i\n"), "i": ("0755", b"#!/bin/sh\necho 2\n")}),
    Case("where a link leads", "cat l > /out", {"l": ("link", "f"), "f": b"1", "g": b"2"},
         {"l": ("link", "g"), "f": b"1", "g": b"2"}),
    Case("the text of a link", "readlink l > /out", {"l": ("link", "f"), "f": b"1"},
         {"l": ("link", "./f"), "f": b"1"}),
    Case("a link in the middle", "cat d/f > /out", {"d": ("link", "a"), "a/f": b"1", "b/f": b"2"},
         {"d": ("link", "b"), "a/f": b"1", "b/f": b"2"}),
    Case("a link that leads nowhere", "cat l > /out; true", {"l": ("link", "f")},
         {"l": ("link", "f"), "f": b"1"}),
    Case("the length of a link's text", "stat -c %s l > /out", {"l": ("link", "f"), "f": b"1"},
         {"l": ("link", "./f"), "f": b"1"}),
    Case("a link becomes a file", "test -L l && echo link > /out; true", {"l": ("link", "f")},
         {"l": b"1"}),
    Case("permission", "test -x f && echo runs > /out; true", {"f": b"1"}, {"f": ("0755", b"1")}),
    Case("a mode that is shown", "stat -c %a f > /out", {"f": b"1"}, {"f": ("0600", b"1")}),
    Case("a time", "stat -c %Y f > /out", {"f": b"1"}, {"f": b"2"}),
    Case("which is newer", "test f -nt g && echo f > /out; test g -nt f && echo g > /out; true",
         {"f": b"1", "g": b"g"}, {"f": b"9", "g": b"g"}),
    Case("a file is moved away", "mv f /g", {"f": b"1"}, {"f": b"2"}),
    Case("a tree is moved away", "mv d /e", {"d/f": b"1"}, {"d/f": b"1", "d/g": b"2"}),
    Case("a file is moved over another", "mv f g", {"f": b"1", "g": b"2"}, {"f": b"1", "g": b"3"}),
    Case("a file takes the place of another name", "mv f g", {"f": b"1", "g": b"2"}, {"f": b"1"}),
    Case("a tree is removed", "rm -rf d", {"d/f": b"1"}, {"d/f": b"1", "d/g": b"2"}),
    Case("a tree is made anew", "rm -rf d; mkdir d; echo n > d/n", {"d/f": b"1"},
         {"d/f": b"1", "d/g": b"2"}),
    Case("a directory is emptied by name", "rm d/f; rmdir d 2>/dev/null; true", {"d/f": b"1"},
         {"d/f": b"1", "d/g": b"2"}),
    Case("a file is removed that may be there", "rm -f f", {"g": b"1"}, {"g": b"1", "f": b"1"}),
    Case("a directory that may be there", "mkdir -p d", {"f": b"1"}, {"f": b"1", "d/g": b"1"}),
    Case("a directory that was there", "mkdir -p d", {"d/g": b"1"}, {"f": b"1"}),
    Case("a file is added to a directory", "echo n > d/n", {"d/f": b"1"}, {"d/f": b"2"}, hit=True),
    Case("one line more", "echo n >> f", {"f": b"1\n"}, {"f": b"2\n"}),
    Case("cut off", "truncate -s 1 f", {"f": b"123"}, {"f": b"456"}),
    Case("touched", "touch f", {"f": b"123"}, {"f": b"456"}),
    Case("hard linked", "ln f /h", {"f": b"1"}, {"f": b"2"}),
    Case("changed in place", "sed -i s/a/b/ f", {"f": b"a c"}, {"f": b"a d"}),
    Case("read through a pipe", "cat f | cat | wc -c > /out", {"f": b"1"}, {"f": b"12"}),
    Case("read by a child of a child", "sh -c '(sh -c \"cat f\" &) ; sleep 0.05' > /out; sleep 0.1",
         {"f": b"1"}, {"f": b"2"}),
    Case("sourced", ". ./f; echo $A > /out", {"f": b"A=1\n"}, {"f": b"A=2\n"}),
    Case("compared", "cmp -s f g && echo same > /out; true", {"f": b"1", "g": b"2"},
         {"f": b"1", "g": b"1"}),
    Case("not read at all", "echo 1 > /out", {"f": b"1"}, {"f": b"2", "g": b"3"}, hit=True),
    Case("read in another directory", "cat d/f > /out", {"d/f": b"1", "e/f": b"1"},
         {"d/f": b"1", "e/f": b"2"}, hit=True),
    Case("a user's number", "id -u > /w/out", {"passwd": b"u:x:5:5::/:/bin/sh\n"},
         {"passwd": b"u:x:6:6::/:/bin/sh\n"},
         head="RUN cp w/passwd /etc/passwd; chmod 777 /w\nUSER u"),
    Case("a user's home", "echo $HOME > /w/out", {"passwd": b"u:x:5:5::/a:/bin/sh\n"},
         {"passwd": b"u:x:5:5::/b:/bin/sh\n"},
         head="RUN cp w/passwd /etc/passwd; chmod 777 /w\nUSER u"),
    Case("how many names a file has", "stat -c %h f > /out", {"f": b"1", "l": b""},
         {"f": b"1", "l": b"", "yes": b""},
         head="RUN cd /w; test -e yes && ln f f2; true"),
    Case("which names are one file", "find . -samefile f | sort > /out", {"f": b"1", "g": b"1"},
         {"f": b"1", "g": b"1", "yes": b""},
         head="RUN cd /w; if test -e yes; then ln -f f g; ln -f f h; else ln -f f h; ln -f f g; "
         "fi; rm -f yes; mkdir -p /made"),
    Case("a time of a directory", "stat -c %Y d > /out", {"d/f": b"1"},
         {"d/f": b"1", "yes": b""},
         head="RUN cd /w; touch -d @5 d; test -e yes && touch -d @6 d; rm -f yes"),
    Case("a size alone, of files of one time", "find f -size 0c > /out", {"f": b""}, {"f": b"1"},
         head="RUN touch /w/f"),
    Case("names that one file has lost", "stat -c %h f > /out", {"f": b"1"},
         {"f": b"1", "yes": b""},
         head="RUN cd /w; test -e yes && ln f f2; rm -f yes; true\nRUN rm -f /w/f2"),
    Case("a directory is moved over an empty one", "mkdir n; mv -T n d; true", {"d/f": b"1"},
         {"d/f": b"1", "yes": b""}, head="RUN cd /w; test -e yes || rm d/f; rm -f yes"),
    Case("a directory is made anew as it was", "rmdir d; mkdir d", {"d/f": b"1"},
         {"d/f": b"1", "yes": b""},
         head="RUN cd /w; rm d/f; test -e yes && touch -d @5 d; rm -f yes"),
    Case("read in a file system of the step's own",
         "unshare -Urm sh -c 'mount --bind d e && cat e/f' > /out; true",
         {"d/f": b"1", "e/f": b"1"}, {"d/f": b"2", "e/f": b"1"}),
    Case("an owner", "stat -c %u f > /out", {"f": b"1"}, {"f": b"1", "yes": b""},
         head="RUN cd /w; test -e yes && chown 5 f; rm -f yes"),
    Case("a mode of the root", "stat -c %a / > /out", {"f": b"1"}, {"f": b"1", "yes": b""},
         head="RUN cd /w; test -e yes && chmod 700 /; rm -f yes"),
    Case("a time of a directory that is copied up", "echo n > d/n; chmod 700 d/e",
         {"d/e/f": b"1"}, {"d/e/f": b"1", "yes": b""},
         head="RUN cd /w; touch -d @5 d/e; test -e yes && touch -d @6 d/e; rm -f yes"),
)  # fmt: skip


def wrong_hits(
    traced: Machine, clean: Callable[[Case], object], cases: tuple[Case, ...] = CASES
) -> Iterator[str]:
    """The cases in which a trace reused what a real run would not have given, and those in
    which it should have reused and did not."""
    for case in cases:
        traced.build(case.text, context(case.files), trace="auto")
        again = traced.build(case.text, context(case.changed), trace="auto")
        hit = again.steps[-1].evidence == "trace"
        if case.hit and not hit:
            yield f"{case.name}: executed without need"
        found = differences(again, clean(case))  # type: ignore[arg-type]
        if hit and found:
            yield f"{case.name}: {found[0]}"
        elif found:
            yield f"{case.name}: executed, and yet {found[0]}"
