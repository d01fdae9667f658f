"""Which files of a project a command is known to read. Pure.

Nothing is guessed: a command that is not known to read little may read everything.
"""

from __future__ import annotations

import itertools
import posixpath
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from layercache._base.classes import frozen
from layercache.trees.patterns import Ignore

__all__ = ["Project", "needed_files"]

MANIFESTS: Final[Mapping[str, tuple[str, ...]]] = {
    "npm install": ("package.json", "package-lock.json", ".npmrc"),
    "npm ci": ("package.json", "package-lock.json", "npm-shrinkwrap.json", ".npmrc"),
    "yarn": ("package.json", "yarn.lock", ".yarnrc", ".yarnrc.yml"),
    "pnpm install": ("package.json", "pnpm-lock.yaml", "pnpm-workspace.yaml", ".npmrc"),
    "pip install -r": ("requirements*.txt", "constraints*.txt"),
    "pip3 install -r": ("requirements*.txt", "constraints*.txt"),
    "python -m pip install -r": ("requirements*.txt", "constraints*.txt"),
    "poetry install": ("pyproject.toml", "poetry.lock"),
    "uv sync": ("pyproject.toml", "uv.lock"),
    "pipenv install": ("Pipfile", "Pipfile.lock"),
    "go mod download": ("go.mod", "go.sum"),
    "cargo fetch": ("Cargo.toml", "Cargo.lock"),
    "bundle install": ("Gemfile", "Gemfile.lock"),
    "composer install": ("composer.json", "composer.lock"),
    "mvn dependency:": ("pom.xml",),
    "gradle dependencies": ("build.gradle*", "settings.gradle*", "gradle.properties"),
    "dotnet restore": ("*.csproj", "*.sln", "nuget.config"),
    "mix deps.get": ("mix.exs", "mix.lock"),
}
"""Commands that install dependencies, and the files of the context that they are known to read."""

_SYSTEM: Final[Mapping[str, frozenset[str]]] = {
    **dict.fromkeys(
        ("apt-get", "apt", "dnf", "microdnf", "yum", "zypper"),
        frozenset({"update", "upgrade", "install", "clean", "autoremove"}),
    ),
    "apk": frozenset({"add", "update", "upgrade"}),
    **dict.fromkeys(("useradd", "groupadd", "adduser", "addgroup"), frozenset[str]()),
}
"""Commands that read nothing of a project when they name packages, and their verbs."""

_LISTS: Final = ("/var/lib/apt/lists", "/var/cache/")

_PACKAGES: Final = (".deb", ".rpm", ".apk")

_SYSTEM_DIRECTORIES: Final = frozenset(
    {"bin", "boot", "dev", "etc", "lib", "lib64", "proc", "root", "run", "sbin", "share", "sys",
     "usr", "var"}
)  # fmt: skip


@frozen
class Project:
    """The files of the context, and access to their text if available."""

    files: tuple[str, ...]
    read: Callable[[str], str] | None


def needed_files(text: str, base: str, project: Project) -> frozenset[str] | None:
    """The paths of the context that a RUN reads; None if that is not known.

    `text` is the instruction, `base` the directory of the image that the context is copied to,
    with a slash at the end.
    """
    words = text.split()[1:]
    while words and words[0].startswith("--"):
        if words[0].startswith("--mount=") and not any(
            f"type={kind}" in words[0] for kind in ("cache", "secret", "ssh", "tmpfs")
        ):
            return None
        words.pop(0)
    if _of_the_system(" ".join(words)) and not _reaches_system(base, project.files):
        return frozenset()
    return frozenset(_manifests(" ".join(words), base, project)) or None


def _of_the_system(command: str) -> bool:
    """Whether a command only installs system packages by name, or creates accounts."""
    if any(mark in command for mark in "|<>$`(){}[]\\\"'"):
        return False
    parts = [part.split() for part in command.replace("&&", ";").split(";")]
    known = False
    for words in parts:
        while words and "=" in words[0]:
            words = words[1:]
        if not words or words[0] == "set" or words[:2] == ["rm", "-rf"]:
            if any("/" in w and not w.startswith(_LISTS) for w in words):
                return False
            continue
        verbs = _SYSTEM.get(words[0])
        operands = [word for word in words[1:] if not word.startswith("-")]
        if verbs is None or (verbs and not (operands and operands[0] in verbs)):
            return False
        if verbs and any("/" in word or word.endswith(_PACKAGES) for word in operands):
            return False
        known = True
    return known


def _reaches_system(base: str, files: Sequence[str]) -> bool:
    """Whether files copied to `base` may lie where system tools look for files."""
    parts = [part for part in base.split("/") if part]
    if parts[:1] and parts[0] not in {"usr", "var"}:
        return parts[0] in _SYSTEM_DIRECTORIES
    if parts[:2] in (["usr", "src"], ["usr", "app"], ["var", "www"], ["var", "task"]):
        return False
    if parts[:2] == ["usr", "local"] and len(parts) > 2:
        return parts[2] in _SYSTEM_DIRECTORIES
    if parts:
        return True
    return any(part in _SYSTEM_DIRECTORIES for f in files for part in f.split("/")[:-1])


def _manifests(command: str, base: str, project: Project) -> set[str]:
    """The manifest files of the context that a known install command reads."""
    patterns: tuple[str, ...] = ()
    for known, names in MANIFESTS.items():
        if known in command:
            patterns += names
    if not patterns:
        return set()
    ignore = Ignore.of(patterns)
    found = {f for f in project.files if "/" not in f and ignore.matches(f)}
    named = [posixpath.normpath(name.removeprefix(base)) for name in _listed(command.split())]
    if named and set(named) <= set(project.files):
        followed = _followed(named, project)
        if followed is None:
            return set()
        found = {f for f in found if not f.endswith(".txt")} | followed
    return found


def _followed(named: Sequence[str], project: Project) -> set[str] | None:
    """Lists of requirements with the lists that they name; None if they name the project itself."""
    if project.read is None:  # they may name one another: all lists beside them
        beside = {posixpath.dirname(name) for name in named}
        return {
            f
            for f in project.files
            if posixpath.dirname(f) in beside and f.endswith((".txt", ".in"))
        }
    found: set[str] = set()
    ahead = list(named)
    while ahead:
        name = ahead.pop()
        if name in found:
            continue
        found.add(name)
        for line in project.read(name).splitlines():
            words = line.split()
            if words[:1] and words[0].startswith((".", "/", "-e", "--editable", "file:")):
                return None
            if "file:" in line or any(word.startswith("./") for word in words):
                return None
            ahead += [
                posixpath.normpath(posixpath.join(posixpath.dirname(name), more))
                for more in _listed(words)
            ]
    return found if found <= set(project.files) else None


def _listed(words: Sequence[str]) -> list[str]:
    """What `-r` and `-c` name among the words of a command or of a line of a list."""
    found = [
        after
        for word, after in itertools.pairwise(words)
        if word in {"-r", "-c", "--requirement", "--constraint"}
    ]
    for word in words:
        flag, _, value = word.partition("=")
        if value and flag in {"--requirement", "--constraint"}:
            found.append(value)
        elif word.startswith(("-r", "-c")) and len(word) > 2:
            found.append(word[2:])
    return found
