"""Frozen keys: material as JSON beside the key that it must always have.

`python -m tests.solver.make_vectors` writes `vectors/content-2.json` and `vectors/chain-2.json`
anew. A vector that changes is a change of the scheme's version, and a line in the changelog.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from layercache.model.digests import Fingerprint
from layercache.model.graph import Input, Step
from layercache.model.instruction import Field, Value
from layercache.model.keys import InputMaterial, KeyMaterial, cache_key
from layercache.model.operations import PARENT, SOURCE, CopyFiles, CopySource, Exec
from layercache.model.selectors import EVERYTHING, Files
from layercache.solver.strategies import ChainKeys, ContentKeys
from layercache.testing.cases import variants

DIRECTORY = Path(__file__).parent / "vectors"

SCHEMES: dict[str, type[ContentKeys | ChainKeys]] = {
    "content-2": ContentKeys,
    "chain-2": ChainKeys,
}

_CHAIN = "sha256:" + "ab" * 32


def _corners() -> Iterator[tuple[str, KeyMaterial]]:
    """Where framing could go wrong: types, lengths, nesting, encodings."""
    values: dict[str, Value] = {
        "none": None,
        "true": True,
        "false": False,
        "zero": 0,
        "one": 1,
        "minus one": -1,
        "big": 10**40,
        "negative big": -(2**64),
        "text": "1",
        "empty text": "",
        "text with nul": "a\0b",
        "text beyond ASCII": "grün 🎉",
        "text decomposed": "gru\u0308n",
        "text of stray bytes": b"\xff\xfe/\x80".decode("utf-8", "surrogateescape"),
        "lone surrogates": "\ud83d\ude00",
        "text like a frame": "s1:a",
        "bytes": b"1",
        "no bytes": b"",
        "all bytes": bytes(range(256)),
        "empty tuple": (),
        "tuple of empty": ((),),
        "tuple of two empty": ((), ()),
        "pair": ("a", "b"),
        "joined pair": ("ab",),
        "split pair": ("", "ab"),
        "nested": (("a",), "b", ((1, (None,)), b"x")),
        "deep": _deep(200),
    }
    for name, value in values.items():
        yield name, KeyMaterial("content/2", "CORNER", (Field("value", value),))
    yield "no fields", KeyMaterial("content/2", "CORNER", ())
    yield "no name", KeyMaterial("content/2", "", ())
    yield "label", KeyMaterial("content/2", "CORNER", (Field("", None),))
    yield "private", KeyMaterial("content/2", "CORNER", (Field("value", "1", private=True),))
    yield "field as trait", KeyMaterial("content/2", "CORNER", (), (Field("value", "1"),))
    yield "salt", KeyMaterial("content/2", "CORNER", (), salt="pepper")
    yield (
        "input",
        KeyMaterial(
            "content/2", "CORNER", (), (), (InputMaterial("r", (Field("s", 1),), Fingerprint("f")),)
        ),
    )
    yield (
        "two inputs",
        KeyMaterial(
            "content/2",
            "CORNER",
            (),
            (),
            (
                InputMaterial("r", (), Fingerprint("f")),
                InputMaterial("r", (), Fingerprint("")),
            ),
        ),
    )
    yield "another scheme", KeyMaterial("mine/7", "CORNER", ())


def _deep(depth: int) -> Value:
    value: Value = "x"
    for _ in range(depth):
        value = (value,)
    return value


def _steps() -> Iterator[tuple[str, Step, tuple[str, ...]]]:
    """Steps with inputs, traits and selectors of every kind."""
    copy = CopyFiles(sources=(CopySource(role=SOURCE, pattern="a"),), destination="/")
    link = CopyFiles(sources=(CopySource(role=SOURCE, pattern="a"),), destination="/", link=True)
    run = Exec(args=("make",))
    traits = (Field("executor", "rootfs/1"), Field("kernel", (6, 18)))
    parent = Input(PARENT, 0)
    yield "run on a parent", Step(run, (parent,)), (_CHAIN,)
    yield "run on scratch", Step(run, (parent,)), ("",)
    yield "run with traits", Step(run, (parent,), traits), (_CHAIN,)
    yield "copy with traits", Step(copy, (parent,), traits), (_CHAIN,)
    for name, instruction in (("copy", copy), ("link", link)):
        for number, files in enumerate(
            (
                Files(("a",)),
                Files(("d/a",)),
                Files(("a", "b*"), exclude=("*.o",)),
                Files(("x/./a",), parents=True),
                Files(("a",), wildcards=False),
                Files(("a",), fixed_mode=True),
                Files(("a",), named=False),
            )
        ):
            step = Step(instruction, (parent, Input(SOURCE, 1, files)))
            yield f"{name} of files {number}", step, (_CHAIN, "cd" * 32)
    yield "copy of everything", Step(copy, (parent, Input(SOURCE, 1, EVERYTHING))), (_CHAIN, _CHAIN)


def materials(name: str) -> dict[str, KeyMaterial]:
    """What the vectors of a scheme are about, by name."""
    keys = SCHEMES[name]()
    found: dict[str, KeyMaterial] = {}
    if name == "content-2":
        found.update({f"framing: {n}": material for n, material in _corners()})
    for label, step, inputs in _steps():
        found[label] = keys.material(step, [Fingerprint(text) for text in inputs])
    for variant in variants():
        base = variant.label.split(".")[0]
        found[f"{base} as it is"] = keys.material(Step(variant.before), ())
        found[f"{variant.label} changed"] = keys.material(Step(variant.after), ())
    found["salted"] = SCHEMES[name]("pepper").material(Step(Exec(args=("make",))), ())
    return found


# -- JSON -----------------------------------------------------------------------------------


def to_json(value: Value) -> Any:
    """A value as JSON that keeps types apart."""
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, tuple):
        return [to_json(item) for item in value]
    if isinstance(value, int) and not isinstance(value, bool):
        return {"int": str(value)}
    if isinstance(value, str) and any("\ud800" <= c <= "\udfff" for c in value):
        return {"points": [ord(character) for character in value]}  # JSON would join pairs
    return value


def from_json(value: Any) -> Value:
    """The inverse."""
    if isinstance(value, list):
        return tuple(from_json(item) for item in value)
    if isinstance(value, dict) and "points" in value:
        return "".join(map(chr, value["points"]))
    if isinstance(value, dict):
        return bytes.fromhex(value["bytes"]) if "bytes" in value else int(value["int"])
    return value  # type: ignore[no-any-return]


def _fields(fields: tuple[Field, ...]) -> list[Any]:
    return [[field.label, to_json(field.value)] for field in fields]


def material_to_json(material: KeyMaterial) -> dict[str, Any]:
    """Everything of material that counts."""
    return {
        "scheme": material.scheme,
        "name": material.name,
        "fields": _fields(material.fields),
        "traits": _fields(material.traits),
        "inputs": [[i.role, _fields(i.selector), i.fingerprint] for i in material.inputs],
        "salt": material.salt,
    }


def material_from_json(value: dict[str, Any]) -> KeyMaterial:
    """The inverse."""

    def fields(rows: list[Any]) -> tuple[Field, ...]:
        return tuple(Field(label, from_json(item)) for label, item in rows)

    return KeyMaterial(
        scheme=value["scheme"],
        name=value["name"],
        fields=fields(value["fields"]),
        traits=fields(value["traits"]),
        inputs=tuple(
            InputMaterial(role, fields(selector), Fingerprint(fingerprint))
            for role, selector, fingerprint in value["inputs"]
        ),
        salt=value["salt"],
    )


def main() -> None:
    """Write all vectors."""
    for name in SCHEMES:
        rows = [
            {"name": label, "key": cache_key(material), "material": material_to_json(material)}
            for label, material in materials(name).items()
        ]
        text = ",\n".join(json.dumps(row) for row in rows)
        (DIRECTORY / f"{name}.json").write_text(f"[\n{text}\n]\n", encoding="ascii")


if __name__ == "__main__":
    main()
