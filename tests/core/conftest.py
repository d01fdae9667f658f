"""What the suite shares."""

from __future__ import annotations

import pytest

from layercache.testing.layers import Layers


@pytest.fixture
def layers():
    """A project in memory; the plug-in has the same fixture for others."""
    return Layers()
