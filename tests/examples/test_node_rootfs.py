"""The guide's Node example in a root file system, with a base image made on the spot."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from layercache.cli import main
from layercache.testing.images import busybox_layer, make_layout

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "node-app"

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0,
    reason="needs root on Linux",
)


def needed_files(program: str) -> set[str]:
    """The libraries that a program loads."""
    shown = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    return {word for word in shown.split() if word.startswith("/")}


def node_layer(path: Path) -> bytes:
    """This machine's node and npm with their libraries, as a layer."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("not installed: npm")
    program = os.path.realpath(node)
    package = Path(os.path.realpath(npm)).parents[1]
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        archive.add(program, "usr/bin/node")
        for library in sorted(needed_files(program)):
            archive.add(os.path.realpath(library), library.lstrip("/"))
        archive.add(package, "usr/lib/node_modules/npm")
        link = tarfile.TarInfo("usr/bin/npm")
        link.type, link.linkname = tarfile.SYMTYPE, "../lib/node_modules/npm/bin/npm-cli.js"
        archive.addfile(link)
        env = tarfile.TarInfo("usr/bin/env")
        env.type, env.linkname = tarfile.SYMTYPE, "/bin/busybox"
        archive.addfile(env)
    return path.read_bytes()


def test_the_walkthrough_in_a_root_file_system(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Five builds with the decisions of the guide; the install is npm's own, in the image."""
    busybox = busybox_layer()
    if busybox is None:
        pytest.skip("not installed: busybox")
    layout = tmp_path / "layout"
    config = {"Env": ["PATH=/usr/bin:/bin", "HOME=/root"], "WorkingDir": "/app"}
    make_layout(layout, [busybox, node_layer(tmp_path / "node.tar")], config)
    app = tmp_path / "app"
    shutil.copytree(EXAMPLE, app)

    def build(tag: str, *options: str) -> list[str | None]:
        status = main(
            [
                "build", "-t", f"myapp:{tag}", "--json", "--executor", "rootfs",
                "--cache", str(tmp_path / "cache"),
                "--build-context", f"node:20-alpine=oci-layout://{layout}", *options, str(app),
            ]
        )  # fmt: skip
        out = capsys.readouterr()
        report = json.loads(out.out)
        assert status == 0, report["error"]
        return [step["decision"] for step in report["steps"] if step["decision"]]

    assert build("1.0") == ["miss"] * 4
    assert build("1.1") == ["hit"] * 4
    with open(app / "server.js", "a", encoding="utf-8") as source:
        source.write("// one more line\n")
    assert build("1.2") == ["hit", "hit", "hit", "miss"]
    manifest = json.loads((app / "package.json").read_text())
    (app / "package.json").write_text(json.dumps({**manifest, "version": "1.0.1"}, indent=2))
    assert build("1.3") == ["hit", "miss", "miss", "miss"]
    assert build("1.4", "--no-cache") == ["miss"] * 4
    out = tmp_path / "out"
    assert build("1.5", "--output", f"type=local,dest={out}") == ["hit"] * 4
    assert (out / "app" / "node_modules" / "greeting").exists() or (
        out / "node_modules" / "greeting"
    ).exists()
