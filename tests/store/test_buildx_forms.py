"""Caches as buildx writes them mean what they mean there, or are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from layercache.errors import UsageError
from layercache.store.backends import open_backend
from layercache.store.backends.fsspec import FsspecBackend
from layercache.store.backends.local import LocalBackend
from layercache.store.backends.registry import RegistryBackend


@pytest.mark.parametrize(
    "text",
    [
        "type=local,dest=x,moed=max",
        "type=local,dest=x,mode=min",
        "type=local,dest=x,dest=y",
        "type=local,dest=x,src=y",
        "type=local,bucket=x",
        "type=local,dest",
        'type=local,"dest=x',
        "type=registry,ref=h.io/a,insecure=true",
        "type=registry,ref=h.io/a,registry.insecure=maybe",
        "type=registry",
        "type=s3,bucket=b,name=a;b",
        "type=s3,bucket=b,name=../a",
        "type=registry,ref=h.io/a,image-manifest=false",
        "type=local,dest=x,ignore-error=false",
        "user/app:cache",
        "a/b:c",
        "type=s3,bucket=b,blobs_prefix=a",
        "type=s3,bucket=b,access_key_id=a",
        "type=s3,bucket=b,use_path_style=2",
        "type=gha",
        "type=",
    ],
)
def test_what_means_nothing_is_refused(text: str) -> None:
    """No key is ignored; no value is shown."""
    with pytest.raises(UsageError, match="not a cache"):
        open_backend(text)


def test_values_are_not_shown() -> None:
    """They may be secrets."""
    with pytest.raises(UsageError) as caught:
        open_backend("type=s3,bucket=b,secret_access_key=hunter2,typo=hunter2")
    assert "hunter2" not in str(caught.value)


def test_keys_of_s3_reach_the_client() -> None:
    """Credentials, addressing and place."""
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    backend = open_backend(
        "type=s3,bucket=b,prefix=p/,name=n,region=r,endpoint_url=http://127.0.0.1:1,access_key_id=a,"
        "secret_access_key=s,session_token=t,use_path_style=true,mode=max"
    )
    assert isinstance(backend, FsspecBackend)
    assert backend.__getstate__() == {
        "url": "s3://b/p/n",
        "options": {
            "key": "a",
            "secret": "s",
            "token": "t",
            "client_kwargs": {"region_name": "r", "endpoint_url": "http://127.0.0.1:1"},
            "config_kwargs": {"s3": {"addressing_style": "path"}},
        },
    }


@pytest.mark.parametrize(
    "text",
    [
        "ghcr.io/org/app:cache",
        "ghcr.io/org/app",
        "v1.2/cache",
        "localhost/app",
        "localhost/app:cache",
        "127.0.0.1:5000/app",
        "[::1]:5000/app",
        "registry.example/app@sha256:" + "0" * 64,
    ],
)
def test_the_short_form_is_a_registry(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless a directory of that name is there."""
    monkeypatch.chdir(tmp_path)
    assert isinstance(open_backend(text), RegistryBackend)
    (tmp_path / text).mkdir(parents=True)
    assert isinstance(open_backend(text), LocalBackend)


@pytest.mark.parametrize(
    "text",
    ["cache", "a/b", "./ghcr.io/org/app:cache", "/a.b/c:d", "~/a.b:c", "../a/b:c", "C:\\a:b"],
)
def test_a_path_stays_a_path(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A first part without dot or port is no host."""
    monkeypatch.chdir(tmp_path)
    assert isinstance(open_backend(text), LocalBackend)
