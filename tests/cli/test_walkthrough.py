"""The guide's walkthrough as a script, on both examples."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.parametrize("app", ["node-app", "python-app"])
def test_walkthrough(app: str, tmp_path: Path) -> None:
    """Five builds in five processes decide as the guide says, and run the install three times."""
    if app == "node-app" and shutil.which("npm") is None:
        pytest.skip("not installed: npm")
    environment = {
        **os.environ,
        "PYTHON": sys.executable,
        "PYTHONPATH": str(ROOT),
        "TMPDIR": str(tmp_path),
    }
    done = subprocess.run(
        ["sh", str(ROOT / "docs" / "examples" / "walkthrough.sh"), app],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("the walkthrough went as the guide says\n")
    assert [] == list(tmp_path.iterdir())
