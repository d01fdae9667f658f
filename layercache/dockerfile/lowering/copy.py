"""Lowering of COPY and ADD: sources by kind, the absolute destination, inputs."""

from __future__ import annotations

import posixpath

from layercache.dockerfile.instructions import Add, Copy
from layercache.dockerfile.lowering.origins import located, problem
from layercache.dockerfile.lowering.stage import StageFold
from layercache.dockerfile.syntax.heredocs import HereDoc
from layercache.model.graph import Input, Origin
from layercache.model.image_config import HistoryEntry
from layercache.model.operations import SOURCE, CopyFiles, CopySource
from layercache.model.selectors import EVERYTHING, Files
from layercache.model.sources import GitSource

__all__ = ["lower_copy"]


def lower_copy(fold: StageFold, copy: Copy | Add, origin: Origin) -> HistoryEntry | None:
    """Append the step of a COPY or ADD; None if the image that it reads is still missing."""
    expand, from_argument = fold.variables.expand, fold.variables.from_argument
    private: list[str] = []
    from_argument()
    sources: list[CopySource] = []
    texts: list[str] = []
    patterns: list[str] = []
    inputs: list[Input] = []
    parents = isinstance(copy, Copy) and copy.parents
    checksum = None
    if isinstance(copy, Add) and copy.checksum is not None:
        checksum = located(copy, expand, copy.checksum)
    keep_git_dir = isinstance(copy, Add) and copy.keep_git_dir
    documents = [word for word in copy.sources if isinstance(word, HereDoc)]
    for word in copy.sources:
        if isinstance(word, HereDoc):
            continue
        text = located(copy, expand, word)
        texts.append(text)
        remote = None
        if ":" in text:  # present in every URL and repository
            from layercache.dockerfile.lowering.remote import remote_source

            remote = remote_source(text, copy, checksum)
        if remote is not None:
            role = f"remote {len(sources)}"
            name = "."
            if not isinstance(remote, GitSource):
                from layercache.dockerfile.lowering.remote import file_name, url_name

                name = file_name(copy, url_name(remote.name), "the URL")
            keep_git_dir = keep_git_dir or getattr(remote, "keep_git_dir", False)
            sources.append(CopySource(role=role, pattern=name, remote=True))
            inputs.append(Input(role, fold.graph.source(remote), EVERYTHING))
        else:
            pattern = clean_pattern(text, parents)
            patterns.append(pattern)
            sources.append(CopySource(role=SOURCE, pattern=pattern))
    for document in documents:  # they come after all paths, wherever they were written
        from layercache.dockerfile.lowering.remote import file_name

        file_name(copy, document.name, "a here-document")
        body = document.body
        if document.expand:
            body = located(copy, fold.variables.expand_body, body)
        texts.append(f"<<{document.name}")
        sources.append(CopySource(role="", pattern=document.name, content=body.encode()))
    _check_checksum(copy, sources)
    private += ["sources"] * from_argument()
    exclude = tuple(located(copy, expand, pattern) for pattern in copy.exclude)
    private += ["exclude"] * from_argument()
    chmod = located(copy, expand, copy.chmod) if copy.chmod is not None else None
    private += ["chmod"] * from_argument()
    if chmod and not (_is_octal(chmod) and len(chmod) <= 4):
        from layercache.model.mode_change import parse_mode

        located(copy, parse_mode, chmod)  # a wrong value is reported before anything runs
    if patterns:
        vertex = fold.input_of(copy.from_ if isinstance(copy, Copy) else None, copy)
        if vertex is None:
            return None
        files = Files(
            tuple(patterns),
            exclude,
            parents,
            fixed_mode=_is_octal(chmod),
            private=tuple(
                label
                for label, found in (("patterns", "sources"), ("exclude", "exclude"))
                if found in private
            ),
        )
        inputs.append(Input(SOURCE, vertex, files))
    destination = located(copy, expand, copy.destination)
    if from_argument() or ("workdir" in fold.private and not destination.startswith("/")):
        private.append("destination")
    # With here-documents alone ADD does what COPY does, and is the same step (observed rule 10.2).
    adds = isinstance(copy, Add) and bool(inputs)
    chown = located(copy, expand, copy.chown) if copy.chown is not None else None
    private += ["chown"] * from_argument()
    if chown and fold.is_scratch and not all(map(_is_number, chown.split(":"))):
        raise problem(
            copy,
            f"--chown={chown}: an empty image has no accounts to look names up in; give numbers",
        )
    operation = CopyFiles(
        name="ADD" if adds else "COPY",
        sources=tuple(sources),
        destination=fold.absolute(destination),
        chown=_owner(chown) if chown else None,
        chmod=_mode(chmod) if chmod else None,
        # With a mode the image is read all the same, as BuildKit does: a directory that is there
        # keeps its own.
        link=copy.link and not chmod,
        parents=parents,
        exclude=exclude,
        unpack=_unpack(copy, sources) if isinstance(copy, Add) and adds else False,
        keep_git_dir=keep_git_dir,
        private=tuple(private),
    )
    fold.add(operation, origin, inputs)
    # History shows the expanded text, with the flags that BuildKit shows.
    flags = ["--parents"] if parents else []
    flags += [f"--chown={chown}"] if chown else []
    flags += [f"--chmod={chmod}"] if chmod else []
    return HistoryEntry.of(" ".join([copy.op, *flags, *texts, destination]), layer=True)


def _unpack(add: Add, sources: list[CopySource]) -> bool | None:
    """--unpack if it differs from the rule: unpack archives of the context, but no others."""
    ruled = all(source.remote is not add.unpack for source in sources)
    return None if ruled else add.unpack


def _owner(text: str) -> str:
    """root is 0 in every image, so both have the same key (observed rule 4.6)."""
    return ":".join("0" if part == "root" else part for part in text.split(":"))


def _is_number(part: str) -> bool:
    return part in ("", "root") or part.isdecimal()


def _mode(text: str) -> str:
    """Octal modes in one form (755 = 0755, observed rule 4.6); symbolic ones as written."""
    return f"{int(text, 8):04o}" if _is_octal(text) else text


def _is_octal(text: str | None) -> bool:
    return bool(text) and set(text or "") <= set("01234567")


def clean_pattern(text: str, parents: bool) -> str:
    """A source relative to the root of its input; `d`, `d/` and `./d` are equal.

    With `parents`, the pivot `/./` is kept.
    """
    if parents:
        left, pivot, right = text.partition("/./")
        if pivot:
            kept = _clean(right)
            return f"{_clean(left)}/./{kept}" if left.strip("/") else f"./{kept}"
    return _clean(text)


def _clean(text: str) -> str:
    return posixpath.normpath("/" + text).lstrip("/") or "."


def _check_checksum(copy: Copy | Add, sources: list[CopySource]) -> None:
    if isinstance(copy, Add) and copy.checksum is not None:
        remote = [source for source in sources if source.remote]
        if len(sources) != 1:
            raise problem(copy, "--checksum can be used with a single source only")
        if not remote:
            raise problem(copy, "--checksum can be used with a URL or a Git repository only")
