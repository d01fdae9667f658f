"""A directory as a tree: the same answers as the model, and no more work than needed."""

from __future__ import annotations

import os
import stat
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from layercache.errors import SourceError
from layercache.inputs.scan.context_tree import Context
from layercache.model.selectors import Files
from layercache.model.tree import CAPABILITY, Node, Tree
from layercache.trees.in_memory import DictTree, directory, file, link
from layercache.trees.listing import listing
from layercache.trees.patterns import Ignore
from layercache.trees.selection import fingerprint, select, walk
from tests.inputs import disk

SAMPLE: dict[str, disk.Entry] = {
    "a.txt": "alpha",
    "empty": "",
    "exec": file("#!", 0o755),
    "d/b.txt": "beta",
    "d/s/c.md": "gamma",
    "d/l": link("../a.txt"),
    "d/out": link("/etc/passwd"),
    "d/dangling": link("nowhere"),
    "e": directory(0o711),
    "new\nline": "n",
    "bad\udcff": "x",
    "e\u0301": "nfd",
    "\u00e9": "nfc",
    "sp ace": "s",
}


def test_a_context_is_a_tree(tmp_path: str) -> None:
    """Lookups, children, digests and content are those of the same tree in memory."""
    root = disk.make(os.path.join(tmp_path, "c"), SAMPLE)
    model = DictTree(SAMPLE | {"": (Node(os.stat(root).st_mode), b"")})
    with disk.scan(root) as tree:
        assert isinstance(tree, Tree)
        for path, node in model.nodes.items():
            found = tree.lookup(path)
            assert found is not None
            assert (found.mode, found.link, found.content, found.uid, found.gid) == (
                node.mode,
                node.link,
                node.content,
                0,
                0,
            )
            assert list(tree.children(path)) == list(model.children(path))
            assert tree.digest(path) == model.digest(path)
            if node.is_file:
                with tree.open(path) as content:
                    assert content.read() == model.content(path)
        assert tree.lookup(b"nope") is None
        assert tree.lookup(b"a.txt/x") is None
        assert list(tree.children(b"a.txt")) == []
        with pytest.raises(SourceError):
            tree.digest(b"nope")
        with pytest.raises(SourceError):
            tree.open(b"d")


def test_owners_are_root(tmp_path: str) -> None:
    """A context reports 0:0 whoever owns the files."""
    root = disk.make(os.path.join(tmp_path, "c"), {"a": "1"})
    expected = disk.fingerprint(root)
    if os.geteuid() == 0:
        os.chown(os.path.join(root, "a"), 1000, 1000)

    assert disk.fingerprint(root) == expected


def test_roots_that_can_not_be(tmp_path: str) -> None:
    """A file or nothing at all is no context."""
    disk.put(str(tmp_path), "f", "x")
    for name in ("f", "none"):
        with pytest.raises(SourceError, match="not a directory"):
            Context(os.path.join(tmp_path, name))


NAMES = st.sampled_from(["a", "b", "d", "a.md", "\udcff", "é"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
VALUES = st.one_of(
    st.sampled_from(["", "1", "2" * 5000]),
    st.builds(link, st.sampled_from(["a", "/d", "../x"])),
    st.builds(directory, st.sampled_from([0o755, 0o700])),
    st.builds(file, st.just("x"), st.sampled_from([0o600, 0o4755])),
)
IGNORES = st.lists(
    st.sampled_from(["*.md", "**/*.md", "d", "!d/a", "*", "!**/a", "a", "!d/a/b", "b/**"]),
    max_size=4,
).map("\n".join)
SELECTIONS = st.builds(
    Files,
    st.lists(st.sampled_from([".", "*", "d", "*/a", "[ab]*"]), min_size=1, max_size=2).map(tuple),
    st.lists(st.sampled_from(["*.md", "**/a", "!d/a", "**", "d"]), max_size=2).map(tuple),
    st.booleans(),
)


def entries(chosen: dict[str, disk.Entry]) -> dict[str, disk.Entry]:
    """`chosen` without what lies below something that is no directory."""
    kept: dict[str, disk.Entry] = {}
    for path in sorted(chosen):
        parents = [path[:n] for n, c in enumerate(path) if c == "/"]
        values = [kept.get(parent, directory()) for parent in parents]
        if all(isinstance(value, tuple) and value[0].is_dir for value in values):
            kept[path] = chosen[path]
    return kept


def ignored(kept: dict[str, disk.Entry], rules: str) -> DictTree:
    """The model of a context with an ignore file: what is kept, and the directories above."""
    ignore = Ignore.parse(rules)
    full = DictTree(kept)
    left: dict[str, disk.Entry] = {}
    for path, node in full.nodes.items():
        if path and not ignore.matches(path):
            for cut in [n for n, c in enumerate(path) if c == 0x2F] + [len(path)]:
                above = path[:cut]
                left[os.fsdecode(above)] = (full.nodes[above], full.content(above))
            left[os.fsdecode(path)] = (node, full.content(path))
    return DictTree(left)


@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(PATHS, VALUES, max_size=8), IGNORES, SELECTIONS)
def test_disk_and_model_agree(
    tmp_path_factory: pytest.TempPathFactory,
    chosen: dict[str, disk.Entry],
    rules: str,
    files: Files,
) -> None:
    """Fingerprints, walks and listings of a directory are those of the same tree in memory."""
    kept = entries(chosen)
    root = disk.make(str(tmp_path_factory.mktemp("c")), kept)
    model = ignored(kept, rules)
    with disk.scan(root, ignore=rules) as tree:
        try:
            expected = fingerprint(model, files)
        except SourceError:
            with pytest.raises(SourceError):
                tree.fingerprint(files)
            return
        assert tree.fingerprint(files) == expected
        assert listing(tree, files) == listing(model, files)
        for mine, other in zip(select(tree, files), select(model, files), strict=True):
            assert (mine.path, mine.name, mine.relative) == (other.path, other.name, other.relative)
            assert [(r, p) for r, p, _ in walk(tree, mine)] == [
                (r, p) for r, p, _ in walk(model, other)
            ]


# -- work -----------------------------------------------------------------------------------------


def many(root: str, files: int, each: int = 20) -> None:
    for number in range(files // each):
        here = os.path.join(root, f"d{number % 7}", f"s{number}")
        os.makedirs(here)
        for name in range(each):
            with open(os.path.join(here, f"f{name}.js"), "wb") as out:
                out.write(b"%d %d" % (number, name))


def test_an_unchanged_context_opens_no_file(tmp_path: str) -> None:
    """10,000 files: the second scan asks for stamps, and lists and opens nothing."""
    root, cache = os.path.join(tmp_path, "c"), os.path.join(tmp_path, "cache")
    many(root, 10_000)
    disk.age(root)
    expected = disk.fingerprint(root, cache)
    with disk.scan(root, cache) as tree:
        assert tree.fingerprint(disk.ALL) == expected
        found = disk.counts(tree)

    assert found == {
        "files_opened": 0,
        "bytes_hashed": 0,
        "directories_listed": 0,
        "stats": 10_000 + 500 + 7 + 1,
    }


def test_only_what_is_selected_is_read(tmp_path: str) -> None:
    """COPY of one file reads one file, and the whole later reads only the rest."""
    root = disk.make(os.path.join(tmp_path, "c"), SAMPLE)
    with disk.scan(root) as tree:
        tree.fingerprint(Files(("*.txt",)))
        assert tree.counts.files_opened == 1
        tree.fingerprint(Files(("d",), exclude=("**/*.md",)))
        assert tree.counts.files_opened == 2
        tree.fingerprint(disk.ALL)
        regular = sum(node.is_file for node in DictTree(SAMPLE).nodes.values())
        assert tree.counts.files_opened == regular


def test_further_copies_of_an_unchanged_context_ask_nothing(tmp_path: str) -> None:
    """Twenty selections after the first make no call to the file system."""
    root, cache = os.path.join(tmp_path, "c"), os.path.join(tmp_path, "cache")
    many(root, 200)
    disk.age(root)
    disk.fingerprint(root, cache)
    with disk.scan(root, cache) as tree:
        before = disk.counts(tree)
        for number in range(20):
            tree.fingerprint(Files((f"d{number % 7}", ".")))
        assert disk.counts(tree) == before


def test_one_changed_file_is_one_file_read(tmp_path: str) -> None:
    """What changed is read, and nothing else; a new file lists its directory only."""
    root, cache = os.path.join(tmp_path, "c"), os.path.join(tmp_path, "cache")
    many(root, 400)
    disk.age(root)
    first = disk.fingerprint(root, cache)
    disk.put(root, "d1/s1/f3.js", "changed")
    with disk.scan(root, cache) as tree:
        second = tree.fingerprint(disk.ALL)
        assert (tree.counts.files_opened, tree.counts.directories_listed) == (1, 0)
    disk.age(root)
    disk.put(root, "d1/s1/new.js", "new")
    with disk.scan(root, cache) as tree:
        third = tree.fingerprint(disk.ALL)
        assert tree.counts.directories_listed == 1
        assert tree.counts.files_opened <= 2

    assert len({first, second, third}) == 3
    assert third == disk.fingerprint(root)


def test_ignored_directories_are_not_entered(tmp_path: str) -> None:
    """Nothing below a directory that is ignored for good is listed or asked."""
    root = os.path.join(tmp_path, "c")
    disk.make(root, {"node_modules/a/b/c.js": "1", "node_modules/x": "2", "src/a.py": "3"})
    with disk.scan(root, ignore="node_modules\n") as tree:
        tree.fingerprint(disk.ALL)
        assert tree.counts.directories_listed == 2
        assert tree.lookup(b"node_modules") is None
        assert tree.children(b"") == [b"src"]


def test_a_missing_source_names_the_rule_that_hides_it(tmp_path: str) -> None:
    """An ignored file that is asked for says which line of which file ignores it."""
    root = disk.make(os.path.join(tmp_path, "c"), {"a.txt": "1", "d/x": "2"})
    ignore = Ignore.parse("# why\n*.txt\n", "app.dockerignore")
    with Context(root, ignore).scan() as tree:
        with pytest.raises(SourceError, match=r"app\.dockerignore line 2 \(\*\.txt\)"):
            tree.fingerprint(Files(("a.txt",)))
        with pytest.raises(SourceError, match="was not found"):
            tree.fingerprint(Files(("b.txt",)))


def test_threads_get_the_same_answers(tmp_path: str) -> None:
    """A tree may be asked from several threads at once."""
    root = os.path.join(tmp_path, "c")
    many(root, 400)
    with disk.scan(root) as tree:
        found: list[tuple[int, str]] = []

        def ask(number: int) -> None:
            for turn in range(7):
                which = (number + turn) % 7
                found.append((which, tree.fingerprint(Files((f"d{which}",)))))
                for name in tree.children(f"d{which}".encode()):
                    tree.lookup(f"d{which}/".encode() + name + b"/f1.js")

        threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 56
        assert len(set(found)) == 7
        assert tree.counts.files_opened == 400


# -- special files --------------------------------------------------------------------------------


def test_special_files(tmp_path: str) -> None:
    """A socket is an empty file as builders copy it, a FIFO is a FIFO; neither is opened."""
    import socket

    root = disk.make(os.path.join(tmp_path, "c"), {"d/f": "1"})
    before = disk.fingerprint(root)
    os.mkfifo(os.path.join(root, "d/fifo"), 0o644)
    with_fifo = disk.fingerprint(root)
    here = os.getcwd()
    os.chdir(os.path.join(root, "d"))
    try:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind("sock")
    finally:
        os.chdir(here)
    with disk.scan(root) as tree:
        assert tree.fingerprint(disk.ALL) not in {before, with_fifo}
        node = tree.lookup(b"d/sock")
        assert node is not None
        assert node.is_file
        assert tree.open(b"d/sock").read() == b""
        fifo = tree.lookup(b"d/fifo")
        assert fifo is not None
        assert stat.S_ISFIFO(fifo.mode)
        with pytest.raises(SourceError):
            tree.open(b"d/fifo")


@disk.needs_root
def test_devices_count_by_number(tmp_path: str) -> None:
    """Another minor number is another device."""
    found: list[str] = []
    for minor in (3, 5, 3):
        root = os.path.join(tmp_path, f"c{len(found)}")
        disk.make(root, {"n": (Node(stat.S_IFCHR | 0o600, device=(1, minor)), b"")})
        with disk.scan(root) as tree:
            found.append(tree.fingerprint(disk.ALL))
            node = tree.lookup(b"n")
            assert node is not None
            assert node.device == (1, minor)

    assert found[0] == found[2] != found[1]


@disk.needs_root
def test_capabilities_count(tmp_path: str) -> None:
    """`security.capability` counts, survives the stat cache, and can be taken away again."""
    root, cache = (
        disk.make(os.path.join(tmp_path, "c"), {"a": "1", "b": "2"}),
        str(os.path.join(tmp_path, "cache")),
    )
    path = os.path.join(root, "a")
    plain = disk.fingerprint(root, cache)
    os.setxattr(path, "security.capability", disk.CAPABILITY)
    capable = disk.fingerprint(root, cache)
    disk.age(root)
    disk.fingerprint(root, cache)
    with disk.scan(root, cache) as tree:
        again = tree.fingerprint(disk.ALL)
        node = tree.lookup(b"a")
        assert tree.counts.files_opened == 0
    os.removexattr(path, "security.capability")
    os.setxattr(path, "user.note", b"x")

    assert node is not None
    assert node.xattrs == ((CAPABILITY, disk.CAPABILITY),)
    assert node.content == DictTree({"a": "1"}).lookup(b"a").content  # type: ignore[union-attr]
    assert plain != capable == again
    assert disk.fingerprint(root, cache) == plain


def test_unreadable_files_matter_only_when_selected() -> None:
    """What can't be read is an error with its name for who selects it, and for nobody else."""
    with disk.unprivileged() as root:
        disk.make(root, {"ok": "1", "closed/x": "2", "secret": "3", "ignored/y": "4"})
        os.chmod(os.path.join(root, "secret"), 0)
        os.chmod(os.path.join(root, "closed"), 0)
        os.chmod(os.path.join(root, "ignored"), 0)
        with disk.scan(root, ignore="ignored") as tree:
            tree.fingerprint(Files(("ok",)))
            with pytest.raises(SourceError, match=r"secret can't be read: Permission denied"):
                tree.fingerprint(Files(("secret",)))
            with pytest.raises(SourceError, match="closed/ can't be listed"):
                tree.fingerprint(Files(("closed",)))
            with pytest.raises(SourceError):
                tree.fingerprint(disk.ALL)
            assert tree.lookup(b"ignored") is None


def test_deep_trees(tmp_path: str) -> None:
    """More levels than descriptors may be open, with something to read on each."""
    root = os.path.join(tmp_path, "c")
    os.makedirs(root)
    path = root
    for level in range(300):
        disk.put(path, f"f{level}", str(level))
        path = os.path.join(path, "d")
        os.mkdir(path)
    cache = os.path.join(tmp_path, "cache")
    disk.age(root)
    with disk.scan(root, cache) as tree:
        first = tree.fingerprint(disk.ALL)
        assert len(os.listdir("/proc/self/fd")) < 120
    with disk.scan(root, cache) as tree:
        assert tree.fingerprint(disk.ALL) == first
        assert tree.counts.files_opened == 0


def test_paths_beyond_the_limit_are_refused(tmp_path: str) -> None:
    """A path that no builder can open is an error, not a loop."""
    root = os.path.join(tmp_path, "c")
    os.makedirs(root)
    here = os.open(root, os.O_RDONLY)
    try:
        for _ in range(20):
            os.mkdir("n" * 250, dir_fd=here)
            below = os.open("n" * 250, os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
    finally:
        os.close(here)

    with pytest.raises(SourceError, match="too long"):
        disk.scan(root)


@disk.needs_root
def test_files_of_others_are_read_too() -> None:
    """Who may read a file but does not own it reads it all the same."""
    with disk.unprivileged() as root:
        os.seteuid(0)
        disk.make(root, {"a": "1", "d/b": "2"})
        expected = disk.fingerprint(root)
        os.seteuid(65534)

        assert disk.fingerprint(root) == expected
        with disk.scan(root) as tree:
            assert tree.open(b"d/b").read() == b"2"
