"""Caches as buildx writes them: `type=…,KEY=VALUE,…`, and the short form of a registry.

A key means what it means there, or is refused: what is ignored is found out too late.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from layercache.errors import UsageError

if TYPE_CHECKING:
    from layercache.store.backend import Backend

__all__ = ["is_reference", "open_buildx"]

_KEYS: Final = {
    "local": ("dest", "src", "mode", "ignore-error"),
    "registry": (
        "ref", "registry.insecure", "mode", "oci-mediatypes", "image-manifest", "ignore-error",
    ),
    "s3": (
        "bucket", "region", "prefix", "name", "endpoint_url", "access_key_id", "secret_access_key",
        "session_token", "use_path_style", "mode", "ignore-error",
    ),
}  # fmt: skip
_ALWAYS: Final = {
    "oci-mediatypes": "OCI media types are written always",
    "image-manifest": "every object is an image manifest",
    "ignore-error": "a cache never fails a build",
}
"""Keys whose behaviour is fixed, and why: only true is accepted."""

_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", re.ASCII)
_BUILDX_ELSEWHERE: Final = ("gha", "inline", "azblob")
_FLAGS: Final = {"true": True, "1": True, "false": False, "0": False}
_HOST: Final = re.compile(r"(?:localhost|[^/\\.~][^/\\]*[.:][^/\\]*|\[[0-9a-fA-F:]+\](?::\d+)?)")
_TAGGED: Final = re.compile(r"[a-z0-9._/-]+(?::[\w.-]+|@sha256:[0-9a-f]{64})", re.ASCII)


def is_reference(text: str) -> bool:
    """Whether a text without a scheme is `HOST/NAME[:TAG]` rather than a directory.

    A host is `localhost`, or has a dot or a port. A directory is one that is there, or begins
    with `./`, `../` or `/`. Raises `UsageError` for `NAME/NAME:TAG`: buildx would take it for an
    image of Docker Hub.
    """
    first, slash, _ = text.partition("/")
    if not slash or (len(first) < 3 and not _TAGGED.fullmatch(text)) or os.path.isdir(text):
        return False
    if len(first) > 2 and _HOST.fullmatch(first):
        return True
    if _TAGGED.fullmatch(text):
        raise UsageError(
            f"not a cache: {text!r} may be a directory or a repository of Docker Hub: write "
            f"./{text} or docker.io/{text}"
        )
    return False


def open_buildx(text: str, durability: str) -> Backend:
    """The backend that `type=…` names; raises `UsageError`, which shows keys and no values."""
    options = _fields(text)
    kind = options.pop("type")
    shown = ",".join([f"type={kind[:40]}", *(f"{name[:40]}=…" for name in options)])
    if kind not in _KEYS:
        hint = " (not supported here)" if kind in _BUILDX_ELSEWHERE else ""
        raise UsageError(f"not a cache: {shown}: type={kind}{hint}; use local, registry or s3")
    if unknown := [name for name in options if name not in _KEYS[kind]]:
        raise UsageError(
            f"not a cache: {shown}: {', '.join(unknown)[:200]} has no meaning for type={kind} "
            f"(expected {', '.join(_KEYS[kind])})"
        )
    if options.get("mode", "max") != "max":
        raise UsageError(
            f"not a cache: {shown}: every step is kept here, which is mode=max; there is no other"
        )
    for name, why in _ALWAYS.items():
        if name in options and not _flag(options, name, shown):
            raise UsageError(f"not a cache: {shown}: {name}=false is not possible: {why}")
    needed = {"local": ("dest", "src"), "registry": ("ref",), "s3": ("bucket",)}[kind]
    place = next((options[name] for name in needed if options.get(name)), None)
    if place is None:
        what = {"local": "dest=DIR or src=DIR", "registry": "ref=REFERENCE", "s3": "bucket=NAME"}
        raise UsageError(f"not a cache: {shown} (type={kind} needs {what[kind]})")
    if kind == "local":
        if len({options[name] for name in needed if options.get(name)}) > 1:
            raise UsageError(f"not a cache: {shown}: dest and src are different directories")
        from layercache.store.backends.local import LocalBackend

        return LocalBackend(place, durability=durability)
    if kind == "registry":
        from layercache.store.backends.registry import RegistryBackend

        return RegistryBackend(place, insecure=_flag(options, "registry.insecure", shown))
    return _s3(place, options, shown)


def _fields(text: str) -> dict[str, str]:
    """The keys and values; fields are separated as in CSV."""
    import csv

    try:
        (parts,) = csv.reader([text], strict=True)
    except (csv.Error, ValueError):
        raise UsageError("not a cache: type=…, with a quotation mark that is not closed") from None
    options: dict[str, str] = {}
    for part in parts:
        name, equals, value = part.partition("=")
        name = name.strip().lower()
        if not equals:
            raise UsageError("not a cache: type=…, with a part that is not KEY=VALUE")
        if name in options:
            raise UsageError(f"not a cache: type=…, with {name[:40]} given twice")
        options[name] = value.strip()
    return options


def _flag(options: Mapping[str, str], name: str, shown: str) -> bool:
    value = options.get(name, "false").lower()
    if value not in _FLAGS:
        raise UsageError(f"not a cache: {shown}: {name} is true or false")
    return _FLAGS[value]


def _s3(bucket: str, options: Mapping[str, str], shown: str) -> Backend:
    from layercache.store.backends.fsspec import FsspecBackend

    if bool(options.get("access_key_id")) != bool(options.get("secret_access_key")):
        raise UsageError(f"not a cache: {shown}: a key needs access_key_id and secret_access_key")
    names = {"access_key_id": "key", "secret_access_key": "secret", "session_token": "token"}
    given: dict[str, Any] = {to: options[name] for name, to in names.items() if options.get(name)}
    names = {"region": "region_name", "endpoint_url": "endpoint_url"}
    client = {to: options[name] for name, to in names.items() if options.get(name)}
    if client:
        given["client_kwargs"] = client
    if _flag(options, "use_path_style", shown):
        given["config_kwargs"] = {"s3": {"addressing_style": "path"}}
    prefix = options.get("prefix", "").strip("/")
    if name := options.get("name", ""):
        if not _NAME.fullmatch(name):
            raise UsageError(
                f"not a cache: {shown}: name is one word of letters, digits, '.', '_' and '-'; "
                "give the option once for each of several names"
            )
        prefix = f"{prefix}/{name}".strip("/")
    return FsspecBackend(f"s3://{bucket}/{prefix}".rstrip("/"), **given).check()
