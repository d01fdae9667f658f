"""COPY, ADD and WORKDIR: the trees they make, as BuildKit was observed to make them."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
from collections.abc import Mapping

import pytest

from layercache.errors import BuildError, Cancelled, ContextChanged, SourceError, UsageError
from layercache.executors.copy import CopyPlan
from layercache.layers.state_tree import StateTree
from layercache.model.descriptors import SCRATCH, State
from layercache.model.layer_times import LAYER_TIME, copied_time
from layercache.model.operations import CopyFiles, CopySource, MakeDirectory
from layercache.model.selectors import Files
from layercache.model.tree import CAPABILITY, Node, Tree
from layercache.trees.in_memory import DictTree, directory, file, link
from layercache.trees.selection import fingerprint

from .kit import MemoryBlobs, copy, listing, run

PASSWD = "root:x:0:0::/:/bin/sh\napp:x:1000:1001::/:/bin/sh\n"
GROUP = "root:x:0:\napp:x:1001:\nstaff:x:50:app\n"


def built(
    source: Mapping[str, object],
    *instructions: object,
    parent: Mapping[str, object] | None = None,
) -> dict[str, str]:
    """The listing of the state after `instructions` on a state that holds `parent`."""
    return listing(_built(source, *instructions, parent=parent))


def _built(
    source: Mapping[str, object],
    *instructions: object,
    parent: Mapping[str, object] | None = None,
) -> Tree:
    blobs = MemoryBlobs()
    state = base(blobs, parent or {})
    blobs.trees["source"] = DictTree(source)  # type: ignore[arg-type]
    for instruction in instructions:
        state, _ = run(blobs, instruction, state)
    return blobs.tree(state)


def base(blobs: MemoryBlobs, files: Mapping[str, object]) -> State:
    """A state that holds exactly `files`."""
    if not files:
        return SCRATCH
    blobs.trees["source"] = DictTree(files)  # type: ignore[arg-type]
    state, _ = run(blobs, copy(".", to="/"))
    return state


# -- destinations -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("to", "parent", "expected"),
    [
        ("/x", {}, "x"),
        ("/x/", {}, "x/a.txt"),
        ("/x/y/z", {}, "x/y/z"),
        ("/", {}, "a.txt"),
        ("/x", {"x": directory()}, "x/a.txt"),
        ("/x", {"x": "old"}, "x"),
        ("/l", {"l": link("/real"), "real": directory()}, "real/a.txt"),
        ("/l", {"l": link("real")}, "real"),
        ("/l/", {"l": link("d/e")}, "d/e/a.txt"),
        ("/l/new/", {"l": link("../../d"), "d": directory()}, "d/new/a.txt"),
        ("/x/.", {}, "x/a.txt"),
    ],
)
def test_where_a_file_goes(to: str, parent: Mapping[str, object], expected: str) -> None:
    """Trailing slash or a directory that is there: into it. Links are followed in the image."""
    found = built({"a.txt": "alpha"}, copy("a.txt", to=to), parent=parent)
    assert found[expected] == "file 0644 0:0 b'alpha'"
    assert len([line for line in found.values() if "alpha" in line]) == 1


def test_a_directory_gives_its_contents() -> None:
    """The name of the source is lost, what is in it comes along, links as links."""
    source = {"d/a": "1", "d/s/b": file("2", 0o600), "d/l": link("a"), "d/s": directory(0o700)}
    assert built(source, copy("d", to="/x")) == {
        "x": "dir 0755 0:0",
        "x/a": "file 0644 0:0 b'1'",
        "x/l": "link 0777 0:0 -> a",
        "x/s": "dir 0700 0:0",
        "x/s/b": "file 0600 0:0 b'2'",
    }


def test_the_destination_keeps_its_mode_and_directories_beneath_take_the_source_s() -> None:
    """Merging: the top is left alone, a directory below gets the mode and owner copied."""
    parent = {"x": directory(0o711), "x/s": directory(0o711), "x/old": "o", "x/s/old": "o"}
    source: dict[str, str | bytes | tuple[Node, bytes]] = {
        "d": directory(0o700),
        "d/s": directory(0o750),
        "d/s/new": "n",
    }
    blobs = MemoryBlobs()
    state = base(blobs, parent)
    # The base was made by COPY; give its directories the modes that the test is about.
    assert listing(blobs.tree(state))["x"] == "dir 0711 0:0"
    blobs.trees["source"] = DictTree(source)
    state, result = run(blobs, copy("d", to="/x", chown="7:8"), state)
    found = listing(blobs.tree(state))
    assert found["x"] == "dir 0711 0:0"
    assert found["x/s"] == "dir 0750 7:8"
    assert found["x/s/new"] == "file 0644 7:8 b'n'"
    assert found["x/old"] == "file 0644 0:0 b'o'"
    assert result.layer is not None
    assert blobs.index(result.layer).paths == [b"", b"x", b"x/s", b"x/s/new"]
    entry = blobs.index(result.layer).get(b"x")
    assert entry is not None
    assert entry.implied, "no entry for a directory that was neither made nor changed"


@pytest.mark.parametrize(
    ("source", "instruction", "parent"),
    [
        ({"a": "1"}, copy("a", to="/f/x"), {"f": "file"}),
        ({"a": "1"}, copy("a", to="/f/"), {"f": "file"}),
        ({"d/a": "1"}, copy("d", to="/f"), {"f": "file"}),
        ({"d/a/b": "1"}, copy("d", to="/"), {"a": "file"}),
        ({"d/a": "1"}, copy("d", to="/"), {"a/b": "file"}),
        ({"d/a/b": "1"}, copy("d", to="/"), {"a": link("/real"), "real": directory()}),
        ({"a": "1"}, copy("a", to="/l"), {"l": link("l")}),
        ({}, MakeDirectory(path="/f/x"), {"f": "file"}),
        ({}, MakeDirectory(path="/f"), {"f": "file"}),
        ({"d/a": "1"}, copy("./d/a", to="/p/", parents=True), {"p/d": "file"}),
    ],
)
def test_files_and_directories_do_not_replace_each_other(
    source: Mapping[str, object], instruction: object, parent: Mapping[str, object]
) -> None:
    """A file where a directory has to be, and the other way round, is an error."""
    with pytest.raises(BuildError):
        built(source, instruction, parent=parent)


def test_a_link_beneath_the_destination_is_replaced() -> None:
    """Only the destination itself is followed; what lies in it is what gets replaced."""
    parent = {"x/a": link("/precious"), "precious": "old"}
    found = built({"d/a": "new"}, copy("d", to="/x"), parent=parent)
    assert found["x/a"] == "file 0644 0:0 b'new'"
    assert found["precious"] == "file 0644 0:0 b'old'"
    found = built({"a": "new"}, copy("a", to="/x/"), parent=parent)
    assert found["x/a"] == "file 0644 0:0 b'new'"


def test_named_links_are_followed_and_keep_their_name() -> None:
    """COPY of a link gives what it points to, inside the context's root."""
    source = {"l": link("/d/f"), "d/f": "content", "up": link("../../../d")}
    assert built(source, copy("l", to="/x/"))["x/l"] == "file 0644 0:0 b'content'"
    assert built(source, copy("up", to="/x"))["x/f"] == "file 0644 0:0 b'content'"


def test_several_sources() -> None:
    """In order, a later one over an earlier one; without a directory the last one stays."""
    source = {"a": "1", "b": "2", "d/a": "3"}
    assert built(source, copy("a", "b", to="/x/")) == {
        "x": "dir 0755 0:0",
        "x/a": "file 0644 0:0 b'1'",
        "x/b": "file 0644 0:0 b'2'",
    }
    assert built(source, copy("a", "d", to="/x/"))["x/a"] == "file 0644 0:0 b'3'"
    assert built(source, copy("a", "b", to="/x")) == {"x": "file 0644 0:0 b'2'"}


def test_a_pattern_without_a_match_copies_nothing() -> None:
    """Not even the destination is made; a plain name that is not there is an error."""
    blobs = MemoryBlobs({"source": DictTree({"a": "1"})})
    _, result = run(blobs, copy("*.none", to="/x/"))
    assert result.layer is None
    with pytest.raises(SourceError):
        run(blobs, copy("none", to="/x/"))


def test_what_was_made_on_the_way_belongs_to_chown() -> None:
    """Directories above the destination are the new owner's, and of an octal mode; else 0755."""
    assert built({"a": "1"}, copy("a", to="/x/y/a", chown="5", chmod="0600")) == {
        "x": "dir 0600 5:5",
        "x/y": "dir 0600 5:5",
        "x/y/a": "file 0600 5:5 b'1'",
    }
    assert built({"a": "1"}, copy("a", to="/x/a", chown="5", chmod="go=")) == {
        "x": "dir 0755 5:5",
        "x/a": "file 0600 5:5 b'1'",
    }


def test_a_stage_s_owners_come_along() -> None:
    """Without --chown the source's owner is the copy's, directories too."""
    source = {"d": directory(uid=3), "d/s": directory(uid=3, gid=4), "d/s/f": file("x", uid=5)}
    assert built(source, copy("d", to="/x")) == {
        "x": "dir 0755 0:0",
        "x/s": "dir 0755 3:4",
        "x/s/f": "file 0644 5:0 b'x'",
    }


# -- owners and modes -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chown", "expected"),
    [
        ("1000:1000", "1000:1000"),
        ("7", "7:7"),
        ("root", "0:0"),
        ("root:root", "0:0"),
        ("app", "1000:1001"),
        ("app:staff", "1000:50"),
        ("app:7", "1000:7"),
        ("7:staff", "7:50"),
        ("app:", "1000:0"),
        (":staff", "0:50"),
    ],
)
def test_owners_by_number_and_name(chown: str, expected: str) -> None:
    """Names are looked up in the parent, numbers taken as they are."""
    parent = {"etc/passwd": PASSWD, "etc/group": link("real"), "etc/real": GROUP}
    found = built({"a": "1"}, copy("a", to="/a", chown=chown), parent=parent)
    assert found["a"] == f"file 0644 {expected} b'1'"


@pytest.mark.parametrize(
    ("chown", "accounts", "expected"),
    [
        ("nobody", True, "0:0"),
        ("app:none", True, "1000:1001"),
        ("none:staff", True, "0:50"),
        ("app", False, "0:0"),
    ],
)
def test_unknown_owners_are_root_and_said(chown: str, accounts: bool, expected: str) -> None:
    """A name that the image does not know counts as not given, and the output says so."""
    parent = {"etc/passwd": PASSWD, "etc/group": GROUP} if accounts else {}
    blobs = MemoryBlobs()
    state = base(blobs, parent)
    blobs.trees["source"] = DictTree({"a": "1"})
    state, result = run(blobs, copy("a", to="/a", chown=chown), state)
    assert listing(blobs.tree(state))["a"] == f"file 0644 {expected} b'1'"
    assert result.output.startswith(b"warning: no ")
    assert b"".join(blobs.output) == result.output


def test_names_with_link_are_refused() -> None:
    """--link reads nothing of the image, so nothing can be looked up; numbers and root work."""
    parent = {"etc/passwd": PASSWD}
    with pytest.raises(UsageError, match="--link"):
        built({"a": "1"}, copy("a", to="/a", chown="app", link=True), parent=parent)
    for chown, expected in (("root", "0:0"), ("3:4", "3:4")):
        found = built({"a": "1"}, copy("a", to="/a", chown=chown, link=True), parent=parent)
        assert found["a"] == f"file 0644 {expected} b'1'"


@pytest.mark.parametrize(
    ("chmod", "tool", "text", "inner"),
    [
        ("755", "0755", "0755", "0755"),
        ("0600", "0600", "0600", "0600"),
        ("4755", "4755", "4755", "4755"),
        ("u=rwX,go=rX", "0755", "0644", "0755"),
        ("+x", "0755", "0755", "0755"),
        ("a-w", "0555", "0444", "0555"),
        ("go=u", "0777", "0666", "0777"),
        ("g+s,o=", "2750", "2640", "2750"),
        ("u=rwx,go=u-w", "0755", "0755", "0755"),
        ("+t", "1755", "1644", "1755"),
    ],
)
def test_chmod(chmod: str, tool: str, text: str, inner: str) -> None:
    """Octal and symbolic, on files and on directories beneath; links have no mode."""
    source = {"d/tool": file("x", 0o755), "d/s/text": "y", "d/l": link("tool")}
    found = built(source, copy("d", to="/x", chmod=chmod))
    assert found["x/tool"] == f"file {tool} 0:0 b'x'"
    assert found["x/s/text"] == f"file {text} 0:0 b'y'"
    assert found["x/s"] == f"dir {inner} 0:0"
    assert found["x"] == f"dir {chmod.rjust(4, '0') if chmod.isdigit() else '0755'} 0:0"
    assert found["x/l"] == "link 0777 0:0 -> tool"


def test_copying_a_class_keeps_setgid() -> None:
    """`g=u` copies three bits, `g=rx` sets all of the group's."""
    source = {"d/s": directory(0o2755), "d/f": file("1", 0o4750)}
    found = built(source, copy("d", to="/x", chmod="g=u,o="))
    assert found["x/s"] == "dir 2770 0:0"
    assert found["x/f"] == "file 4770 0:0 b'1'"
    assert built(source, copy("d", to="/x", chmod="g=rx"))["x/s"] == "dir 0755 0:0"


@pytest.mark.parametrize("chmod", ["8", "10000", "u", "u+q", "rwx", "u=rwx;", ",", "-1"])
def test_modes_that_can_not_be_meant(chmod: str) -> None:
    """Refused before anything is copied."""
    with pytest.raises(UsageError):
        built({"a": "1"}, copy("a", to="/a", chmod=chmod))


ACL = bytes.fromhex(
    "02000000"  # version
    "01000600ffffffff"  # the owner: rw-
    "02000600e8030000"  # user 1000: rw-
    "04000000ffffffff"  # the group: ---
    "10000600ffffffff"  # mask: rw-
    "20000000ffffffff"  # others: ---
)
"""What `setfacl -m u:1000:rw` makes of a file of mode 0600; its mode is then 0660."""


def test_attributes_come_along_and_labels_do_not() -> None:
    """Capabilities, ACLs (default ones, too) and what users set: of files and directories."""
    kept = (
        (CAPABILITY, b"\1\0\0\2" + bytes(16)),
        (b"system.posix_acl_access", ACL),
        (b"user.note", b"n"),
    )
    default = (b"system.posix_acl_default", ACL)
    source = {
        "d/a": file("x", 0o660, xattrs=((b"security.selinux", b"s"), *kept, (b"trusted.t", b"t"))),
        "d/s": directory(0o770, xattrs=(default,)),
        "d/s/b": "2",
    }
    tree = _built(source, copy("d", to="/x"))
    nodes = {path: tree.lookup(path) for path in (b"x/a", b"x/s")}
    assert {path: node.xattrs for path, node in nodes.items() if node} == {
        b"x/a": kept,
        b"x/s": (default,),
    }
    parents = _built(source, copy("d/s/b", to="/p/", parents=True)).lookup(b"p/d/s")
    assert parents is not None
    assert parents.xattrs == (default,)


@pytest.mark.parametrize(("chmod", "mask", "owner", "others"), [("640", 4, 6, 0), ("go=", 0, 6, 0)])
def test_chmod_of_what_has_an_acl(chmod: str, mask: int, owner: int, others: int) -> None:
    """The ACL says the same as the mode: chmod(2) sets its mask, or it would undo the mode."""
    source = {"key": file("x", 0o660, xattrs=((b"system.posix_acl_access", ACL),))}
    node = _built(source, copy("key", to="/key", chmod=chmod)).lookup(b"key")
    assert node is not None
    acl = dict(node.xattrs)[b"system.posix_acl_access"]
    assert (acl[4 + 3 * 8 + 2], acl[4 + 2], acl[4 + 4 * 8 + 2]) == (mask, owner, others)
    assert acl[4 + 8 + 2] == 6, "the entry of the user stays; the mask bounds it"
    damaged = {"key": file("x", 0o660, xattrs=((b"system.posix_acl_access", ACL[:-1]),))}
    node = _built(damaged, copy("key", to="/key", chmod=chmod)).lookup(b"key")
    assert node is not None
    assert node.xattrs == ()


def test_names_of_one_file_stay_names_of_one_file() -> None:
    """From a state: in a directory, by several names, with --parents; across sources none."""
    blobs = MemoryBlobs()
    layer = _tar({"d/a": b"1", "d/s/b": ("d/a",), "d/s/c": ("d/a",), "d/alone": b"2"})
    source = blobs.tree(blobs.state(layer))
    blobs.trees["source"] = source
    for instruction, names in (
        (copy("d", to="/x"), [b"x/a", b"x/s/b", b"x/s/c"]),
        (copy("d", to="/x", chmod="600", chown="5"), [b"x/a", b"x/s/b", b"x/s/c"]),
        (copy("d/a", "d/s/b", to="/x/"), [b"x/a", b"x/b"]),
        (copy("d/s", to="/x", parents=True), [b"x/d/s/b", b"x/d/s/c"]),
        (copy("d", to="/x", exclude=("a",)), [b"x/s/b", b"x/s/c"]),
    ):
        state, _ = run(blobs, instruction)
        tree = blobs.tree(state)
        assert isinstance(tree, StateTree)
        assert list(tree.names(names[0])) == names
        assert tree.names(b"x/alone") == ()


def test_whether_files_are_one_counts() -> None:
    """A link that became a copy is another tree, wherever it is copied to."""
    blobs = MemoryBlobs()
    linked = blobs.tree(blobs.state(_tar({"d/a": b"1", "d/b": ("d/a",), "e": b"1"})))
    apart = blobs.tree(blobs.state(_tar({"d/a": b"1", "d/b": b"1", "e": b"1"})))
    elsewhere = blobs.tree(blobs.state(_tar({"d/a": b"1", "d/b": b"1", "e": ("d/a",)})))

    def prints(files: Files) -> list[str]:
        return [fingerprint(tree, files) for tree in (linked, apart, elsewhere)]

    one, two, three = prints(Files(("d",)))
    assert one != two == three
    one, two, three = prints(Files(("d/a", "e")))
    assert one == two != three
    one, two, three = prints(Files(("d",), exclude=("b",)))
    assert one == two == three
    one, two, three = prints(Files(("d",), fixed_mode=True))
    assert one != two == three


def test_special_files() -> None:
    """Devices and FIFOs are copied, a socket becomes an empty file (as BuildKit)."""
    source = {
        "d/null": (Node(mode=0o20600, device=(1, 3)), b""),
        "d/pipe": (Node(mode=0o10644), b""),
        "d/sock": (Node(mode=0o140755), b""),
    }
    assert built(source, copy("d", to="/x")) == {
        "x": "dir 0755 0:0",
        "x/null": "chr 0600 0:0 1,3",
        "x/pipe": "fifo 0644 0:0",
        "x/sock": "file 0755 0:0 b''",
    }


def test_names_that_mean_deletions_are_refused() -> None:
    """A file called .wh.x is not turned into a deletion of x."""
    for instruction in (
        copy("d", to="/x"),
        copy("d/.wh.x", to="/x/"),
        copy("d/.wh.x", to="/.wh.y"),
    ):
        with pytest.raises(SourceError, match=r"\.wh\."):
            built({"d/.wh.x": "1"}, instruction)
    with pytest.raises(SourceError, match=r"\.wh\."):
        built({"a": "1"}, copy("a", to="/x/.wh.a"))


# -- WORKDIR, here-documents, URLs, --link, --parents, --exclude --------------------------------


def test_workdir() -> None:
    """Made with what is missing above it; where it is there already nothing happens."""
    assert built({}, MakeDirectory(path="/a/b")) == {"a": "dir 0755 0:0", "a/b": "dir 0755 0:0"}
    blobs = MemoryBlobs()
    state = base(blobs, {"a/b": directory(0o700), "l": link("/n/m")})
    for path in ("/a/b", "/", "/a/b/"):
        assert run(blobs, MakeDirectory(path=path), state)[1].layer is None
    state, _ = run(blobs, MakeDirectory(path="/l/c"), state)
    assert listing(blobs.tree(state))["n/m/c"] == "dir 0755 0:0"


@pytest.mark.parametrize(
    ("user", "owner"), [("app", "1000:1001"), ("7:8", "7:8"), ("root", "0:0"), ("nobody", "0:0")]
)
def test_workdir_belongs_to_the_user(user: str, owner: str) -> None:
    """With what is made above it; an unknown user is left to the command that runs as it."""
    parent = {"etc/passwd": PASSWD, "etc/group": GROUP}
    found = built({}, MakeDirectory(path="/w/d", user=user), parent=parent)
    assert found["w"] == found["w/d"] == f"dir 0755 {owner}"


def test_here_documents() -> None:
    """A file of mode 0644 with the document's name, or that of the destination."""

    def document(to: str, **more: object) -> CopyFiles:
        source = CopySource(role="", pattern="EOF", content=b"line\n")
        return CopyFiles(sources=(source,), destination=to, **more)  # type: ignore[arg-type]

    assert built({}, document("/x")) == {"x": "file 0644 0:0 b'line\\n'"}
    assert built({}, document("/x/", chmod="755"))["x/EOF"] == "file 0755 0:0 b'line\\n'"
    add = document("/d", name="ADD", unpack=None)
    assert built({}, add, parent={"d": directory()})["d/EOF"] == "file 0644 0:0 b'line\\n'"


def test_a_fetched_file_is_private_and_named_by_its_url() -> None:
    """Mode 0600 unless --chmod, archives left packed unless asked, no pattern in its name."""
    source = CopySource(role="source", pattern="f[1].tar", remote=True)
    tar = _tar({"in": b"x"})
    add = CopyFiles(name="ADD", sources=(source,), destination="/d/", unpack=None)
    found = _built({"f[1].tar": file(tar, 0o644)}, add)
    node = found.lookup(b"d/f[1].tar")
    assert node is not None
    assert node.mode == 0o100600
    add = CopyFiles(name="ADD", sources=(source,), destination="/d/", unpack=None, chmod="644")
    assert built({"f[1].tar": b"x"}, add)["d/f[1].tar"] == "file 0644 0:0 b'x'"
    add = CopyFiles(name="ADD", sources=(source,), destination="/d/", unpack=True)
    assert built({"f[1].tar": file(tar)}, add)["d/in"] == "file 0644 0:0 b'x'"


def test_link_looks_at_nothing_and_makes_its_own_parents() -> None:
    """The layer is the same on any parent, links and modes of the parent do not matter to it."""
    layers = set()
    for parent in ({}, {"x": link("/real")}, {"x": directory(0o700), "x/old": "o"}):
        blobs = MemoryBlobs()
        state = base(blobs, parent)
        blobs.trees["source"] = DictTree({"a": "1"})
        state, result = run(blobs, copy("a", to="/x/y/", link=True), state)
        assert result.layer is not None
        layers.add(result.layer.diff_id)
        found = listing(blobs.tree(state))
        assert found["x"] == "dir 0755 0:0"
        assert found["x/y/a"] == "file 0644 0:0 b'1'"
    assert len(layers) == 1


def test_parents() -> None:
    """The path below the pivot is kept; its directories are like those of the source."""
    source = {"x": directory(0o700, uid=9), "x/a.txt": "1", "x/y/b.txt": "2", "c.txt": "3"}
    assert built(source, copy("x/a.txt", to="/p/", parents=True)) == {
        "p": "dir 0755 0:0",
        "p/x": "dir 0700 9:0",
        "p/x/a.txt": "file 0644 0:0 b'1'",
    }
    found = built(source, copy("x/a.txt", to="/p/", parents=True, chmod="0750", chown="3:4"))
    assert found == {
        "p": "dir 0750 3:4",
        "p/x": "dir 0750 3:4",
        "p/x/a.txt": "file 0750 3:4 b'1'",
    }
    assert built(source, copy("x/a.txt", to="/p/", parents=True, chmod="g+x")) == {
        "p": "dir 0755 0:0",
        "p/x": "dir 0710 9:0",
        "p/x/a.txt": "file 0654 0:0 b'1'",
    }
    assert built({"tmp": directory(0o1777), "tmp/f": "1"}, copy("tmp/f", to="/", parents=True)) == {
        "tmp": "dir 1777 0:0",
        "tmp/f": "file 0644 0:0 b'1'",
    }
    assert built(source, copy("x/./y/b.txt", to="/p", parents=True, chown="4")) == {
        "p": "dir 0755 4:4",
        "p/y": "dir 0755 4:4",
        "p/y/b.txt": "file 0644 4:4 b'2'",
    }
    found = built(source, copy("**/*.txt", to="/p/", parents=True))
    assert [path for path in found if path.endswith(".txt")] == [
        "p/c.txt",
        "p/x/a.txt",
        "p/x/y/b.txt",
    ]
    found = built(source, copy("x", to="/p/", parents=True))
    assert found["p/x"] == "dir 0700 9:0", "a directory that is named itself is copied as it is"


def test_parents_leave_directories_that_are_there() -> None:
    """Between destination and match nothing of the image changes."""
    parent = {"p/x": directory(0o711)}
    found = built({"x/a": "1"}, copy("x/a", to="/p/", parents=True), parent=parent)
    assert found["p/x"] == "dir 0711 0:0"


def test_exclude() -> None:
    """What is excluded stays out, a directory stays in for the sake of an exception."""
    source = {"d/a.md": "1", "d/b.txt": "2", "d/s/c.md": "3", "d/s/d.txt": "4", "d/e/f.md": "5"}
    found = built(source, copy("d", to="/x", exclude=("*.md", "s", "!s/d.txt")))
    assert sorted(found) == ["x", "x/b.txt", "x/e", "x/e/f.md", "x/s", "x/s/d.txt"]


def test_exclude_of_a_source_itself() -> None:
    """The reference's own example; where nothing is left, that is said."""
    source = {"home.txt": "1", "home.md": "2"}
    assert sorted(built(source, copy("hom*", to="/m/", exclude=("*.txt",)))) == ["m", "m/home.md"]
    with CopyPlan(
        copy("home.txt", to="/m/", exclude=("*.txt",)), DictTree(), lambda _: DictTree(source)
    ) as plan:
        assert "home.txt" in plan.warnings[0]


# -- archives ---------------------------------------------------------------------------------


def _tar(files: Mapping[str, object], **fields: object) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            for field, value in fields.items():
                setattr(member, field, value)
            data = b""
            if isinstance(content, bytes):
                data = content
            elif isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
            elif isinstance(content, tuple):
                member.type, member.linkname = tarfile.LNKTYPE, content[0]
            elif isinstance(content, int):
                member.type, member.mode = tarfile.DIRTYPE, content
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return sink.getvalue()


def add(*patterns: str, to: str, **more: object) -> CopyFiles:
    """An ADD with its own rule of unpacking."""
    return copy(*patterns, to=to, name="ADD", unpack=None, **more)


CODECS = {
    "plain": lambda data: data,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
}


@pytest.mark.parametrize("codec", CODECS)
def test_add_unpacks_by_content(codec: str) -> None:
    """Whatever the name says; COPY and a plain file are left as they are."""
    data = CODECS[codec](_tar({"in.txt": b"one", "sub/x": b"two"}))
    source = {"anything": data, "text": "plain", "not.tar.gz": gzip.compress(b"no tar" * 999)}
    assert built(source, add("anything", to="/t")) == {
        "t": "dir 0755 0:0",
        "t/in.txt": "file 0644 0:0 b'one'",
        "t/sub": "dir 0755 0:0",
        "t/sub/x": "file 0644 0:0 b'two'",
    }
    assert list(built(source, copy("anything", to="/t/"))) == ["t", "t/anything"]
    assert list(built(source, add("text", "not.tar.gz", to="/t/"))) == [
        "t",
        "t/not.tar.gz",
        "t/text",
    ]


def test_add_unpacks_zstd() -> None:
    """With the extra, as the others."""
    zstd = pytest.importorskip("backports.zstd")
    data = zstd.compress(_tar({"in.txt": b"one"}))
    assert "t/in.txt" in built({"a.tar.zst": data}, add("a.tar.zst", to="/t"))


def test_owners_modes_and_times_in_an_archive_stay() -> None:
    """They are content; --chown overrides owners, times are clamped like all others."""
    data = _tar({"f": b"x", "d": 0o700}, uid=7, gid=8, mtime=1_000_000_000)
    tree = _built({"a.tar": data}, add("a.tar", to="/t"))
    assert listing(tree)["t/f"] == "file 0644 7:8 b'x'"
    assert listing(tree)["t/d"] == "dir 0700 7:8"
    node = tree.lookup(b"t/f")
    assert node is not None
    assert node.mtime == 1_000_000_000
    late = _tar({"f": b"x"}, mtime=LAYER_TIME + 5)
    node = _built({"a.tar": late}, add("a.tar", to="/t")).lookup(b"t/f")
    assert node is not None
    assert node.mtime == LAYER_TIME
    assert built({"a.tar": data}, add("a.tar", to="/t", chown="5:6"))["t/f"] == "file 0644 5:6 b'x'"


def test_archive_entries_replace_what_is_there_and_directories_merge() -> None:
    """A file takes a directory's place with all that was in it, and the other way round."""
    parent = {"dir/old": "1", "file": "2", "both/kept": "3", "l": link("/both")}
    data = _tar({"dir": b"now a file", "file": 0o755, "file/in": b"x", "both": 0o700, "l": b"f"})
    found = built({"a.tar": data}, add("a.tar", to="/"), parent=parent)
    assert found == {
        "both": "dir 0700 0:0",
        "both/kept": "file 0644 0:0 b'3'",
        "dir": "file 0644 0:0 b'now a file'",
        "file": "dir 0755 0:0",
        "file/in": "file 0644 0:0 b'x'",
        "l": "file 0644 0:0 b'f'",
    }


def test_a_directory_that_an_archive_removes_and_makes_again_is_empty() -> None:
    """Later entries win: what was beneath is gone, from the image too."""
    data = _tar({"d": b"file", "./d": 0o755, "d/new": b"n"})
    found = built({"a.tar": data}, add("a.tar", to="/"), parent={"d/old": "o", "e": "e"})
    assert found == {
        "d": "dir 0755 0:0",
        "d/new": "file 0644 0:0 b'n'",
        "e": "file 0644 0:0 b'e'",
    }


def test_archives_go_through_links_of_the_image_but_not_out_of_the_destination() -> None:
    """`bin -> usr/bin` of the image is followed; a link that leads outside is an error."""
    data = _tar({"bin/tool": b"t"})
    parent = {"usr/bin": directory(), "bin": link("usr/bin")}
    found = built({"a.tar": data}, add("a.tar", to="/"), parent=parent)
    assert found["usr/bin/tool"] == "file 0644 0:0 b't'"
    assert found["bin"] == "link 0777 0:0 -> usr/bin"
    parent = {"x/usr/bin": directory(), "x/bin": link("/usr/bin"), "usr/bin": directory()}
    found = built({"a.tar": data}, add("a.tar", to="/x"), parent=parent)
    assert found["x/usr/bin/tool"] == "file 0644 0:0 b't'"
    parent = {"x/bin": link("../outside"), "outside": directory()}
    with pytest.raises(BuildError, match="outside"):
        built({"a.tar": data}, add("a.tar", to="/x"), parent=parent)


def test_archives_keep_their_hard_links() -> None:
    """Two names of one file stay that."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        member = tarfile.TarInfo("z")
        member.size = 3
        tar.addfile(member, io.BytesIO(b"abc"))
        member = tarfile.TarInfo("a")
        member.type, member.linkname = tarfile.LNKTYPE, "z"
        tar.addfile(member)
    blobs = MemoryBlobs({"source": DictTree({"a.tar": sink.getvalue()})})
    state, result = run(blobs, add("a.tar", to="/"))
    assert listing(blobs.tree(state)) == {"a": "file 0644 0:0 b'abc'", "z": "file 0644 0:0 b'abc'"}
    assert result.layer is not None
    entry = blobs.index(result.layer).get(b"z")
    assert entry is not None
    assert entry.hardlink == b"a"


def test_several_archives_by_a_pattern() -> None:
    """Each match is unpacked into the destination."""
    source = {"a.tar": _tar({"a": b"1"}), "b.tar": _tar({"b": b"2"}), "c.txt": "3"}
    assert list(built(source, add("*.tar", "c.txt", to="/t/"))) == ["t", "t/a", "t/b", "t/c.txt"]


# -- layers -----------------------------------------------------------------------------------


def test_times_are_a_function_of_content_alone() -> None:
    """The source's time does not count; equal sizes with other bytes get other times."""
    first = _built({"a": file("one", mtime=5), "l": link("a")}, copy(".", to="/"))
    again = _built({"a": file("one", mtime=99), "l": link("a")}, copy(".", to="/"))
    other = _built({"a": file("two", mtime=5), "l": link("a")}, copy(".", to="/"))
    nodes = [tree.lookup(b"a") for tree in (first, again, other)]
    assert nodes[0] == nodes[1]
    assert None not in nodes
    assert nodes[0].mtime == copied_time(nodes[0].content)  # type: ignore[union-attr]
    assert nodes[0].mtime != nodes[2].mtime  # type: ignore[union-attr]
    for path in (b"l", b""):
        node = first.lookup(path)
        assert node is not None
        assert node.mtime == LAYER_TIME


def test_the_same_copy_is_the_same_layer_whatever_the_source_s_order() -> None:
    """Equal trees, equal bytes."""
    files = {f"d/{n}": str(n) for n in range(50)}
    layers = []
    for source in (files, dict(reversed(files.items()))):
        blobs = MemoryBlobs({"source": DictTree(source)})
        layers.append(run(blobs, copy("d", to="/x"))[1].layer)
    assert layers[0] == layers[1]


class _Changing(DictTree):
    """A context in which a file changes between being hashed and being read."""

    def __init__(self, data: bytes) -> None:
        super().__init__({"a": "before"})
        self.data = data

    def open(self, path: bytes) -> io.BytesIO:
        return io.BytesIO(self.data)


@pytest.mark.parametrize("data", [b"after!", b"longer than before", b"short"])
def test_a_file_that_changes_while_it_is_copied_stores_nothing(data: bytes) -> None:
    """The bytes in a layer are those that were hashed, or there is no layer."""
    blobs = MemoryBlobs({"source": _Changing(data)})
    with pytest.raises(ContextChanged):
        run(blobs, copy("a", to="/a"))
    assert blobs.blobs == {}


def test_cancelling_stores_nothing() -> None:
    """A cancelled build ends between two files."""
    blobs = MemoryBlobs({"source": DictTree({"a": "1"})})
    blobs.cancel = True
    with pytest.raises(Cancelled):
        run(blobs, copy("a", to="/a"))
    assert blobs.blobs == {}


def test_a_plan_tells_what_of_the_parent_it_looked_at() -> None:
    """Each component of the destination and each path merged over, present or not; no more."""
    blobs = MemoryBlobs()
    state = base(
        blobs, {"x": link("real"), "real/s/old": "o", "other/far": "f", "etc/passwd": PASSWD}
    )
    source = DictTree({"d/s/new": "n", "d/t": "t"})
    with CopyPlan(copy("d", to="/x"), blobs.tree(state), lambda role: source) as plan:
        reads = dict(plan.reads)
    assert {path for path, node in reads.items() if node is None} == {b"real/s/new", b"real/t"}
    assert {b"x", b"real", b"real/s"} <= reads.keys()
    assert not any(path.startswith((b"other", b"etc")) for path in reads)
    with CopyPlan(copy("d", to="/x", chown="app"), blobs.tree(state), lambda r: source) as plan:
        assert b"etc/passwd" in dict(plan.reads)
