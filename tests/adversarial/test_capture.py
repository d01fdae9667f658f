"""What a command may leave in the attributes of files, and what becomes of it."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import pytest

from layercache.layers.capture import capture_upper
from layercache.layers.writer import LayerWriter
from layercache.model.layer_index import OPAQUE, LayerIndex
from layercache.trees.in_memory import DictTree

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="attributes of overlayfs take root"
)

PARENT = DictTree({"etc/passwd": "root"})


def upper_with(directory: Path, name: str) -> Path:
    """An upper directory that changes /etc, which bears the attribute `name`."""
    (directory / "etc").mkdir(mode=0o755, parents=True)
    (directory / "etc" / "new").write_text("1")
    try:
        os.setxattr(directory / "etc", name, b"y")
    except OSError:
        pytest.skip(f"this file system has no {name}")
    return directory


def captured(directory: Path, *, rootless: bool = False) -> LayerIndex:
    writer = LayerWriter(io.BytesIO())
    capture_upper(str(directory), PARENT, writer, rootless=rootless)
    return writer.finish()[2]


@pytest.mark.parametrize(
    ("name", "rootless", "mark"),
    [
        ("trusted.overlay.opaque", False, True),
        ("user.overlay.opaque", True, True),
        ("user.overlay.opaque", False, False),
        ("trusted.overlay.overlay.opaque", False, False),
        ("user.overlay.overlay.opaque", True, False),
    ],
)
def test_only_what_the_kernel_wrote_is_a_mark(
    tmp_path: Path, name: str, rootless: bool, mark: bool
) -> None:
    """A command that sets the attribute of a mark (as nested overlays do) hides nothing."""
    index = captured(upper_with(tmp_path, name), rootless=rootless)
    row = index.row(b"etc")

    assert row is not None
    assert bool(index.flags(row) & OPAQUE) == mark


@pytest.mark.parametrize("name", ["user.overlay.other", "trusted.other", "security.selinux"])
def test_attributes_that_no_layer_holds_are_taken_away(tmp_path: Path, name: str) -> None:
    """So the directory may serve as the layer's: a later command sees what the layer says."""
    upper = upper_with(tmp_path, name)
    index = captured(upper)
    row = index.row(b"etc")

    assert row is not None
    assert not index.xattrs.get(row)
    assert name not in os.listxattr(upper / "etc")
