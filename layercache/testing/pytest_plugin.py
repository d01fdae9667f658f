"""A pytest plug-in with the fixture `layers`; loaded only when asked for.

pytest_plugins = ["layercache.testing.pytest_plugin"]       # in a conftest.py, or
pytest -p layercache.testing.pytest_plugin

def test_only_the_source_changes(layers):
    layers.build(DOCKERFILE, {"package.json": "{}", "server.js": "1"})
    layers.edit("server.js", "2")
    layers.build().assert_reused("RUN npm install").assert_rebuilt("COPY . .")
"""

from __future__ import annotations

import pytest

from layercache.testing.layers import Layers

__all__ = ["layers"]


@pytest.fixture
def layers() -> Layers:
    """A project in memory with its own cache."""
    return Layers()
