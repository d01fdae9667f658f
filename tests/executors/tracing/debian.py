"""A Debian base image, made of the packages of this machine: no network is used.

It has what the packages named in `PROGRAMS` own, with all that they depend on, and a database of
packages that names just those.
"""

from __future__ import annotations

import functools
import io
import os
import stat
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from layercache.testing.images import make_layout

__all__ = ["PROGRAMS", "debian_layout", "has", "is_debian"]

STATUS: Final = Path("/var/lib/dpkg/status")
INFO: Final = Path("/var/lib/dpkg/info")

PROGRAMS: Final = {
    "apt": ("/usr/bin/apt-get", "apt"),
    "pip": ("/usr/bin/pip", "python3-pip"),
    "npm": ("/usr/bin/npm", "npm", "nodejs"),
    "make": ("/usr/bin/make", "make", "gcc", "libc6-dev"),
    "python": ("/usr/bin/python3", "python3"),
}
"""What a step needs: its program, and the packages that bring it and what it runs."""

_ALWAYS: Final = (
    "base-files", "base-passwd", "bash", "coreutils", "dash", "debianutils", "diffutils", "dpkg",
    "findutils", "grep", "gzip", "hostname", "libc-bin", "mawk", "passwd", "perl-base", "sed",
    "tar",
)  # fmt: skip
_LEFT_OUT: Final = ("/usr/share/doc/", "/usr/share/man/", "/usr/share/locale/")
_FURTHER: Final = ("/etc/ld.so.conf", "/etc/passwd", "/etc/group", "/bin", "/sbin", "/lib",
                   "/lib64", "/usr/bin/cc", "/usr/bin/awk", "/usr/bin/python3")  # fmt: skip
"""What is there without being any package's."""
_ALL_BELOW: Final = ("/etc/ld.so.conf.d", "/etc/alternatives", "/usr/lib/node_modules/npm")
"""Where it is often so of everything: npm may have brought itself up to date."""
_DIRECTORIES: Final = ("proc", "sys", "dev", "run", "root", "var/log/apt", "var/tmp", "var/lib/apt",
                       "var/lib/apt/lists/partial", "var/cache/apt/archives/partial",
                       "var/cache/ldconfig", "var/lib/dpkg/updates", "var/lib/dpkg/triggers",
                       "var/lib/dpkg/alternatives", "etc/apt/apt.conf.d",
                       "etc/apt/preferences.d", "etc/apt/sources.list.d")  # fmt: skip


def is_debian() -> bool:
    """Whether this machine has packages to make an image of."""
    return STATUS.is_file() and os.path.exists("/usr/bin/dpkg-deb") and has("apt") and has("make")


def has(kind: str) -> bool:
    """Whether steps of this kind can run in the image."""
    program, *_ = PROGRAMS[kind]
    return os.path.exists(program) and any(name in _packages() for name in PROGRAMS[kind][1:])


@functools.cache
def _packages() -> Mapping[str, str]:
    """The stanza of each package that is installed."""
    found = {}
    for stanza in STATUS.read_text(encoding="utf-8", errors="surrogateescape").split("\n\n"):
        if "\nStatus: install ok installed\n" in f"\n{stanza}\n":
            found[_field(stanza, "Package")] = stanza
    return found


def _field(stanza: str, name: str) -> str:
    start = f"{name}: "
    return next((x[len(start) :] for x in stanza.splitlines() if x.startswith(start)), "")


def _names(field: str) -> list[list[str]]:
    """The alternatives of each dependency, without versions and architectures."""
    groups = [group.split("|") for group in field.split(",") if group.strip()]
    return [[one.split("(")[0].split(":")[0].strip() for one in group] for group in groups]


def _closure(wanted: Iterable[str]) -> list[str]:
    """Packages with all that they depend on, as far as it is installed."""
    known = _packages()
    providers: dict[str, list[str]] = {}
    for name, stanza in known.items():
        for (provided,) in _names(_field(stanza, "Provides")):
            providers.setdefault(provided, []).append(name)
    found: dict[str, None] = {}
    todo = [name for name in wanted if name in known]
    while todo:
        name = todo.pop()
        if name in found:
            continue
        found[name] = None
        for field in ("Depends", "Pre-Depends"):
            for group in _names(_field(known[name], field)):
                real = [one for one in group if one in known]
                other = [one for name in group for one in providers.get(name, ())]
                todo += (real or other)[:1]
    return sorted(found)


def _listed(package: str) -> list[Path]:
    """The files of a package in dpkg's own directory."""
    architecture = _field(_packages()[package], "Architecture")
    places = (f"{package}.", f"{package}:{architecture}.")
    return sorted(p for place in places for p in INFO.glob(f"{place}*"))


def _owned(package: str) -> Iterable[str]:
    for place in _listed(package):
        if place.suffix == ".list":
            yield from place.read_text(errors="surrogateescape").splitlines()


def debian_layout(directory: Path) -> Path:
    """An OCI layout of the image."""
    packages = _closure([*_ALWAYS, *(n for names in PROGRAMS.values() for n in names[1:])])
    paths = {
        os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
        for package in packages
        for path in _owned(package)
        if not path.startswith(_LEFT_OUT) and path != "/."
    }
    paths.update(_FURTHER)
    for top in _ALL_BELOW:
        for place, directories, files in os.walk(top):
            paths |= {os.path.join(place, name) for name in (*directories, *files)}
    paths |= {str(p) for package in packages for p in _listed(package)}
    paths |= {str(above) for path in paths for above in Path(path).parents}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(paths - {"/", ""}):
            if os.path.lexists(path) and not stat.S_ISSOCK(os.lstat(path).st_mode):
                _add(archive, path)
        for path in _DIRECTORIES:
            _directory(archive, path, 0o755, paths)
        _directory(archive, "tmp", 0o1777, paths)
        known = _packages()
        text = "\n\n".join(known[name] for name in packages) + "\n\n"
        for path, content in (("status", text), ("available", ""), ("triggers/File", "")):
            data = content.encode("utf-8", "surrogateescape")
            info = tarfile.TarInfo(f"var/lib/dpkg/{path}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    path = "PATH=/usr/sbin:/usr/bin:/sbin:/bin"
    make_layout(directory, [out.getvalue()], {"Env": [path]})
    return directory


def _add(archive: tarfile.TarFile, path: str) -> None:
    info = archive.gettarinfo(path, path.lstrip("/"))
    info.uname = info.gname = ""
    if info.isreg():
        with open(path, "rb") as content:
            archive.addfile(info, content)
    else:
        archive.addfile(info)


def _directory(archive: tarfile.TarFile, path: str, mode: int, there: set[str]) -> None:
    names = path.split("/")
    for number in range(1, len(names) + 1):
        above = "/".join(names[:number])
        if "/" + above not in there:
            there.add("/" + above)
            info = tarfile.TarInfo(above)
            info.type = tarfile.DIRTYPE
            info.mode = mode
            archive.addfile(info)
