"""What steps leave on disk becomes a layer: overlay upper directories and plain ones."""

from __future__ import annotations

import io
import os
import socket
import subprocess
from pathlib import Path

import pytest

from layercache.errors import BuildError, SourceError
from layercache.layers.apply import apply, unpack
from layercache.layers.capture import StatTable, capture_diff, capture_upper
from layercache.layers.state_tree import StateTree
from layercache.layers.writer import LayerWriter
from layercache.model.layer_index import LayerIndex

from .disk import differences, overlay, overlay_works, snapshot, tree_snapshot, without_groups
from .kit import DictTree

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

BASE = r"""
mkdir -p a/b/c keep/deep sticky many opaque/in moved linked filedir swap1
echo one > a/b/one; echo two > a/b/two; echo three > a/b/c/three
echo kept > keep/deep/kept; echo gone > gone; echo old > opaque/in/old; echo old2 > opaque/old2
echo moved > moved/file; echo x > linked/first; ln linked/first linked/second
echo dir > filedir/inner; echo file > swap2; ln -s a/b link; mkfifo pipe
chmod 1777 sticky; chmod 0700 keep; chown 12:34 keep/deep
for i in $(seq 300); do echo $i > many/$i; done
mkdir empty; echo meta > meta; echo same > same
touch -d @1000000000 a/b/one keep
"""

CHANGES = {
    "nothing": "true",
    "delete": "rm gone a/b/one; rm -rf a/b/c",
    "opaque": "rm -rf opaque; mkdir opaque; echo new > opaque/new",
    "opaque empty": "rm -rf empty; mkdir empty",
    "opaque nested": "rm -rf a; mkdir -p a/b; echo again > a/b/one",
    "rename file": "mv a/b/two a/b/zwei",
    "rename directory": "cp -a moved moved2; rm -rf moved; mkdir n; mv n m",
    "directory to file": "rm -rf filedir; echo now > filedir",
    "file to directory": "rm swap2; mkdir swap2; echo in > swap2/in",
    "link to directory": "rm link; mkdir link; echo in > link/in",
    "directory to link": "rm -rf swap1; ln -s a swap1",
    "hard links": "echo h > h1; ln h1 h2; mkdir z; ln h1 z/h3; ln -s h1 s1; ln s1 s2",
    "hard link to lower": "ln keep/deep/kept new-name; ln linked/first third",
    "write through a hard link": "echo changed > linked/first",
    "modes": "chmod u+s,g+s meta; chmod 2755 keep; chmod 0000 same; chmod +t many; chmod 700 .",
    "owners": "chown 1000:1000 meta; chown -h 5:6 link; chown 7:8 a/b; chown 3:3 .",
    "attributes": """python3 -c 'import os
os.setxattr("meta", "user.test", b"value")
os.setxattr("a/b", "user.d", bytes(range(256)))
os.setxattr("gone", "trusted.mine", b"not kept")
os.removexattr("gone", "trusted.mine")'""",
    "capabilities": """cp meta tool; cp same other; python3 -c 'import os
v = bytes.fromhex("0100000200200000000000000000000000000000")
os.setxattr("tool", "security.capability", v)
os.chown("other", 1, 1)
os.setxattr("other", "security.capability", v)'""",
    "devices": "mknod null c 1 3; mknod disk b 8 1; mkfifo fifo; chmod 666 null",
    "long names": "l=$(printf 'n%.0s' $(seq 200)); mkdir -p $l/$l; echo x > $l/$l/$l; "
    "ln -s $l/$l/$l$l long-link; ln $l/$l/$l $l/$l/hard",
    "bytes": r"touch $'\xff\xfe' $'new\nline' 'with space' 'ünïcode' $'tab\t' -- -dash; "
    r"mkdir $'\xe9'; echo y > $'\xe9/\xff'",
    "sparse": "truncate -s 3M sparse; echo end >> sparse; "
    "dd if=/dev/urandom of=big bs=300k count=2 2>/dev/null; cp big sure",
    "many": "mkdir lots; cd lots; for i in $(seq 3000); do : > f$i; done",
    "delete many": "rm many/1*; rm -rf many/2*",
    "times": "touch -d @-5 early; touch -d @5 old; touch -d @4000000000 future; mkdir d; "
    "touch -d @7 d; touch -h -d @9 link; touch keep/deep; touch -d @1000000000.5 half",
    "copied up only": "touch a/b/two; chmod 644 a/b/two; chown 0:0 meta",
    "rewritten the same": "cat same > t; cat t > same; rm t; touch -d @1000000000 a/b/one",
    "made and removed": "mkdir tmp; echo x > tmp/x; rm -rf tmp; echo y > y; rm y",
    "replaced by itself": "cp -a a copy; rm -rf a; mv copy a",
    "deep": "p=.; for i in $(seq 60); do p=$p/d; mkdir $p; done; echo x > $p/x",
    "whiteout then back": "rm same; echo same > same; rm -rf keep/deep; mkdir keep/deep",
    "dot names": "mkdir ..x; touch ...; touch ..y; mkdir .h; touch .h/.wha",
}


@pytest.mark.parametrize(
    ("script", "paths"),
    [
        ("touch -d @5 keep", [b"", b"keep"]),
        ("touch -d @5 keep; touch keep/new", [b"", b"keep", b"keep/new"]),
        ("cp -a linked/first t; mv t linked/first", [b"", b"linked", b"linked/first"]),
    ],
)
def test_times_of_directories_and_names_that_are_replaced_are_captured(
    script: str,
    paths: list[bytes],
    base: tuple[Path, tuple[bytes, LayerIndex]],
    tmp_path: Path,
) -> None:
    """A time that was set stays; equal bytes in place of a name of a file are another file."""
    lower, layer = base
    upper = tmp_path / "upper"
    upper.mkdir(mode=0o755)
    with overlay(tmp_path / "merged", [lower], upper) as merged:
        _shell(script, merged)
        time = int(os.stat(merged / "keep").st_mtime)
    writer = LayerWriter(io.BytesIO())
    capture_upper(str(upper), _state(layer), writer)
    index = writer.finish()[2]
    assert list(index.paths) == paths
    entry = index.get(b"keep")
    if "new" in script:
        assert entry is not None
        assert entry.implied, "something in it changed: its time says no more than that"
    elif "keep" in script:
        assert entry is not None
        assert entry.node is not None
        assert entry.node.mtime == time == 5


def _capture_all(root: Path) -> tuple[bytes, LayerIndex]:
    """A directory as one layer on nothing."""
    sink = io.BytesIO()
    writer = LayerWriter(sink)
    capture_diff(str(root), DictTree(), writer, owners=True)
    _, _, index = writer.finish()
    return sink.getvalue(), index


def _state(*layers: tuple[bytes, LayerIndex]) -> StateTree:
    return StateTree(
        [index for _, index in layers],
        lambda number, offset, size: io.BytesIO(layers[number][0][offset : offset + size]),
    )


def _shell(script: str, directory: Path) -> None:
    subprocess.run(["bash", "-e", "-c", script], cwd=directory, check=True)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[bytes, LayerIndex]]:
    """A state of one layer, unpacked for overlayfs."""
    if not overlay_works(tmp_path_factory.mktemp("probe")):
        pytest.skip("overlay file systems can't be mounted here")
    top = tmp_path_factory.mktemp("base")
    made = top / "made"
    made.mkdir()
    _shell(BASE, made)
    layer = _capture_all(made)
    lower = top / "lower"
    lower.mkdir()
    unpack(layer[1], io.BytesIO(layer[0]), str(lower), state=_state(layer))
    return lower, layer


@pytest.mark.parametrize("name", CHANGES)
def test_upper_directory_becomes_the_layer_that_makes_the_same_tree(
    name: str, base: tuple[Path, tuple[bytes, LayerIndex]], tmp_path: Path
) -> None:
    """Seen, applied, unpacked and indexed, a captured step is the tree that the step left."""
    lower, layer = base
    parent = _state(layer)
    upper = tmp_path / "upper"
    upper.mkdir(mode=0o755)
    with overlay(tmp_path / "merged", [lower], upper) as merged:
        _shell(CHANGES[name], merged)
        seen = snapshot(merged, times=False)
    sink = io.BytesIO()
    writer = LayerWriter(sink)
    capture_upper(str(upper), parent, writer)
    diff_id, _, index = writer.finish()
    new = (sink.getvalue(), index)
    state = _state(layer, new)

    plain = tmp_path / "plain"
    plain.mkdir()
    apply(layer[1], io.BytesIO(layer[0]), str(plain))
    apply(index, io.BytesIO(new[0]), str(plain))
    assert differences(seen, snapshot(plain, times=False)) == []
    applied = snapshot(plain)
    assert differences(without_groups(applied), tree_snapshot(state)) == []

    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    unpack(index, io.BytesIO(new[0]), str(unpacked), state=state)
    with overlay(tmp_path / "again", [unpacked, lower]) as merged:
        assert differences(applied, snapshot(merged)) == []
    with overlay(tmp_path / "kept", [upper, lower]) as merged:
        assert differences(applied, snapshot(merged)) == [], "the upper directory itself"

    second = io.BytesIO()
    writer = LayerWriter(second)
    capture_upper(str(unpacked), parent, writer)
    assert diff_id == writer.finish()[0], "an unpacked layer captures as itself"


@pytest.mark.parametrize("name", ["nothing", "made and removed", "copied up only"])
def test_a_step_that_changes_nothing_has_no_layer(
    name: str, base: tuple[Path, tuple[bytes, LayerIndex]], tmp_path: Path
) -> None:
    """What was made and removed again leaves no entry, and nothing is no layer."""
    lower, layer = base
    upper = tmp_path / "upper"
    upper.mkdir(mode=0o755)
    with overlay(tmp_path / "merged", [lower], upper) as merged:
        _shell(CHANGES[name], merged)
    writer = LayerWriter(io.BytesIO())
    capture_upper(str(upper), _state(layer), writer)
    assert writer.empty


@root_only
@pytest.mark.parametrize("name", ["redirect", "metacopy"])
def test_what_overlayfs_kept_by_reference_is_refused(name: str, tmp_path: Path) -> None:
    """An upper directory that only points at a lower layer is no changeset."""
    (tmp_path / "f").write_text("")
    try:
        os.setxattr(tmp_path / "f", f"trusted.overlay.{name}", b"/elsewhere")
    except OSError:
        pytest.skip("this file system has no trusted attributes")
    with pytest.raises(BuildError, match="by reference"):
        capture_upper(str(tmp_path), DictTree(), LayerWriter(io.BytesIO()))


@root_only
def test_sockets_are_left_out_and_what_they_replaced_is_deleted(tmp_path: Path) -> None:
    """No layer can hold one; the directory on disk says the same as the layer afterwards."""
    tmp_path.chmod(0o755)
    for name in ("new", "old"):
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(tmp_path / name))
    sink = io.BytesIO()
    writer = LayerWriter(sink)
    capture_upper(str(tmp_path), DictTree({"old": "a file"}), writer)
    _, _, index = writer.finish()
    assert [(entry.path, entry.node) for entry in index if not entry.implied] == [(b"old", None)]
    assert sorted(os.listdir(tmp_path)) == ["old"]
    assert os.stat(tmp_path / "old").st_rdev == 0


def test_a_deletion_named_by_a_command_is_no_deletion(tmp_path: Path) -> None:
    """A step that makes a file .wh.x fails instead of deleting x."""
    (tmp_path / ".wh.x").write_text("")
    for capture in (capture_upper, capture_diff):
        with pytest.raises(SourceError):
            capture(str(tmp_path), DictTree({"x": "1"}), LayerWriter(io.BytesIO()))


def test_a_table_is_a_value(tmp_path: Path) -> None:
    """What it says of a path that it does not know is that it changed."""
    (tmp_path / "f").write_text("")
    assert not StatTable({}, 0).unchanged(b"f", os.lstat(tmp_path / "f"))
    assert StatTable.of(str(tmp_path)).stats.keys() == {b"", b"f"}
