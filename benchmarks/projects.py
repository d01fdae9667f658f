"""A project whose steps use package managers and a compiler, without a network."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import subprocess
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Any

__all__ = ["STEPS", "UNSTEADY", "make_package", "make_project"]

UNSTEADY = (
    "/var/log/", "/var/cache/ldconfig/aux-cache", "/var/cache/apt/pkgcache.bin",
    "/var/cache/apt/srcpkgcache.bin",
)  # fmt: skip
"""What differs between any two runs of apt and ldconfig: logs and caches with times in them."""


def make_project(
    root: Path,
    *,
    wheels: int = 10,
    tarballs: int = 12,
    modules: int = 150,
    sources: int = 100,
    scripts: int = 400,
) -> None:
    """An application: wheels and npm tarballs of so many modules each, a Debian package, C
    sources, Python scripts."""
    for part in ("wheels", "tgz", "debs", "native", "src"):
        (root / part).mkdir(parents=True)
    names = []
    for number in range(wheels):
        names.append(f"pkg{number}==1.0")
        _wheel(root / "wheels" / f"pkg{number}-1.0-py3-none-any.whl", f"pkg{number}", modules)
    (root / "requirements.txt").write_text("\n".join(names) + "\n")
    _npm(root, tarballs, modules)
    make_package(root / "debs" / "tool_1.0_all.deb")
    objects = []
    for number in range(sources):
        body = "\n".join(f"int f{number}_{n}(int x) {{ return x * {n}; }}" for n in range(60))
        (root / "native" / f"m{number}.c").write_text(
            f"#include <stdio.h>\n#include <stdlib.h>\n{body}\n"
        )
        objects.append(f"m{number}.o")
    (root / "native" / "main.c").write_text("int main(void) { return 0; }\n")
    (root / "Makefile").write_text(
        "OBJS = " + " ".join(f"build/{name}" for name in objects) + "\n"
        "build/app: $(OBJS) native/main.c\n\t$(CC) -o $@ $^\n"
        "build/%.o: native/%.c\n\t@mkdir -p build\n\t$(CC) -O1 -c -o $@ $<\n"
    )
    for number in range(scripts):
        (root / "src" / f"m{number}.py").write_text(
            "".join(f"def f{n}(x):\n    return x + {n}\n\n\n" for n in range(120))
        )
    (root / "check.py").write_text(
        "import ast, glob\n"
        "print(sum(len(ast.parse(open(f).read()).body) for f in sorted(glob.glob('src/*.py'))))\n"
    )
    (root / "README.md").write_text("read me\n")
    (root / "LICENSE").write_text("none\n")


def _wheel(path: Path, name: str, modules: int) -> None:
    info = f"{name}-1.0.dist-info"
    files = {f"{name}/__init__.py": b"from .m0 import f\n"}
    for number in range(modules):
        text = "".join(f"def f{n}(x):\n    return x - {n}\n\n\n" for n in range(80))
        files[f"{name}/m{number}.py"] = ("def f():\n    return 1\n\n\n" + text).encode()
    files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode()
    files[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = [f"{n},sha256={_urlsafe(c)},{len(c)}" for n, c in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,"]).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for file, content in files.items():
            archive.writestr(zipfile.ZipInfo(file, (2020, 1, 1, 0, 0, 0)), content)


def _urlsafe(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def _npm(root: Path, count: int, modules: int) -> None:
    packages: dict[str, Any] = {}
    wanted = {}
    for number in range(count):
        name, file = f"dep{number}", f"tgz/dep{number}-1.0.0.tgz"
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w:gz", compresslevel=1) as archive:
            content = {"package.json": json.dumps({"name": name, "version": "1.0.0"})}
            for module in range(modules):
                content[f"lib/m{module}.js"] = f"exports.f = x => x + {module};\n" * 40
            for path, text in content.items():
                info = tarfile.TarInfo(f"package/{path}")
                info.size = len(text)
                archive.addfile(info, io.BytesIO(text.encode()))
        (root / file).write_bytes(out.getvalue())
        digest = base64.b64encode(hashlib.sha512(out.getvalue()).digest()).decode()
        wanted[name] = f"file:{file}"
        packages[f"node_modules/{name}"] = {
            "version": "1.0.0",
            "resolved": f"file:{file}",
            "integrity": f"sha512-{digest}",
        }
    top = {"name": "app", "version": "1.0.0", "dependencies": wanted}
    lock = {"lockfileVersion": 3, "requires": True, "packages": {"": top, **packages}}
    (root / "package.json").write_text(json.dumps(top, indent=1))
    (root / "package-lock.json").write_text(
        json.dumps({"name": "app", "version": "1.0.0", **lock}, indent=1)
    )


def make_package(path: Path, version: str = "1.0") -> None:
    """A Debian package `tool` with 500 files and a script that runs after it is unpacked."""
    with tempfile.TemporaryDirectory() as made:
        place = Path(made, "usr", "share", "tool")
        place.mkdir(parents=True)
        for number in range(500):
            (place / f"f{number}").write_text(f"{version} {number}\n" * 100)
        control = Path(made, "DEBIAN")
        control.mkdir()
        (control / "control").write_text(
            f"Package: tool\nVersion: {version}\nArchitecture: all\n"
            "Maintainer: nobody <n@example.org>\nDescription: a tool\n"
        )
        (control / "postinst").write_text("#!/bin/sh\nset -e\nldconfig\n")
        os.chmod(control / "postinst", 0o755)
        subprocess.run(
            ["dpkg-deb", "--root-owner-group", "-b", made, str(path)],
            check=True,
            stdout=subprocess.DEVNULL,
        )


STEPS = {
    "apt": "DEBIAN_FRONTEND=noninteractive apt-get install -y -qq ./debs/tool_1.0_all.deb "
    ">/dev/null 2>&1",
    "pip": "PIP_BREAK_SYSTEM_PACKAGES=1 SOURCE_DATE_EPOCH=1 pip install -q --no-index "
    "--find-links wheels --no-cache-dir --root-user-action=ignore --disable-pip-version-check "
    "-r requirements.txt",
    "npm": "npm ci --offline --no-audit --no-fund --silent --cache /tmp/npm && rm -rf /tmp/npm",
    "make": "make -s",
    "python": "python3 -B check.py > /checked",
}
