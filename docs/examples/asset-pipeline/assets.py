"""A custom build system: an asset pipeline with instruction types and an executor of its own.

Three kinds of steps, none of which is a Dockerfile instruction and none of which runs a command:
`Gather` takes files from the site's directory, `Minify` shrinks them, `Bundle` joins the style
sheets. layercache decides which must run, and keeps their results as layers.

    python assets.py SITE OUTPUT [CACHE]
"""

from __future__ import annotations

import io
import re
import stat
import sys
from collections.abc import Sequence

import attrs
from blake3 import blake3

from layercache import Builder, export
from layercache.layers import LayerWriter
from layercache.model import LAYER_TAR, Blobs, Field, Files, Layer, Node, Result, Task, Tree
from layercache.trees import select, walk


@attrs.frozen
class Gather:
    """Take the files that match from the context: keyed by their content, and by nothing else."""

    pattern: str

    name = "GATHER"
    commands = False  # it runs no command, so the executor's traits are no part of its key

    def definition(self) -> Sequence[Field]:
        return (Field("pattern", self.pattern),)

    def reads(self):
        """Role, what is read (None is the main context), and which part of it."""
        return [("site", None, Files((self.pattern,)))]

    @property
    def text(self) -> str:
        return f"GATHER {self.pattern}"


@attrs.frozen
class Minify:
    """Shrink every file of this kind in the state so far."""

    suffix: str
    version: int = 1  # of the algorithm: a better one must not reuse what an older one made

    name = "MINIFY"
    commands = False

    def definition(self) -> Sequence[Field]:
        return (Field("suffix", self.suffix), Field("version", self.version))

    @property
    def reads_parent(self) -> Files:
        """Only the files of this kind count: other changes below leave it reused."""
        return Files((f"*{self.suffix}",))

    @property
    def text(self) -> str:
        return f"MINIFY *{self.suffix}"


@attrs.frozen
class Bundle:
    """Join all files of this kind to one."""

    suffix: str
    target: str

    name = "BUNDLE"
    commands = False

    def definition(self) -> Sequence[Field]:
        return (Field("suffix", self.suffix), Field("target", self.target))

    @property
    def reads_parent(self) -> Files:
        return Files((f"*{self.suffix}",))

    @property
    def text(self) -> str:
        return f"BUNDLE *{self.suffix} -> {self.target}"


class AssetExecutor:
    """Runs the three kinds; `executed` counts how often each did."""

    def __init__(self) -> None:
        self.traits = (Field("executor", "assets/1"),)
        self.executed: list[str] = []

    def execute(self, task: Task, blobs: Blobs) -> Result:
        self.executed.append(task.instruction.text)
        match task.instruction:
            case Gather():
                bound = next(i for i in task.inputs if i.role == "site")
                tree = blobs.tree(bound.subject)
                files = {
                    path: read(tree, path)
                    for match in select(tree, bound.selector)
                    for _, path, node in walk(tree, match)
                    if node.is_file
                }
            case Minify(suffix):
                state = blobs.tree(task.parent)
                files = {path: minify(read(state, path)) for path in names(state, suffix)}
            case Bundle(suffix, target):
                state = blobs.tree(task.parent)
                joined = b"\n".join(read(state, path) for path in names(state, suffix))
                files = {target.encode(): joined}
            case other:
                raise TypeError(f"not a step of this pipeline: {other!r}")
        return layer_of(files, blobs)


def layer_of(files: dict[bytes, bytes], blobs: Blobs) -> Result:
    """A layer that writes these files: equal files give equal bytes, whoever writes them."""
    out = io.BytesIO()
    writer = LayerWriter(out)
    for path, content in sorted(files.items(), key=lambda item: item[0].split(b"/")):
        node = Node(mode=stat.S_IFREG | 0o644, size=len(content), content=blake3(content).digest())
        writer.add(path, node, content)
    diff_id, _, _ = writer.finish()
    out.seek(0)
    return Result(layer=Layer(blobs.add(out, LAYER_TAR), diff_id))


def names(tree: Tree, suffix: str) -> list[bytes]:
    return [name for name in tree.children(b"") if name.endswith(suffix.encode())]


def read(tree: Tree, path: bytes) -> bytes:
    with tree.open(path) as content:
        return content.read()


def minify(text: bytes) -> bytes:
    text = re.sub(rb"/\*.*?\*/", b"", text, flags=re.DOTALL)
    return re.sub(rb"\s+", b" ", text).strip()


PIPELINE = [
    Gather("*.html"),
    Gather("*.css"),
    Minify(".html"),
    Minify(".css"),
    Bundle(".css", "all.css"),
]


def build(site: str, output: str, cache: str | None = None) -> list[tuple[str, str]]:
    """Build the site; returns what was decided for each step."""
    builder = Builder(cache, executor=AssetExecutor())
    result = builder.build(PIPELINE, context=site)
    export(result, f"type=local,dest={output}")
    return [(str(step.decision), step.text) for step in result.steps]


if __name__ == "__main__":
    for decision, text in build(*sys.argv[1:4]):
        print(f"{decision:5} {text}")
