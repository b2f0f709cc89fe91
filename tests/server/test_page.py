"""Where the page is found."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from m3rag.server import page

FIND = "from m3rag.server.page import FOLDERS; print(FOLDERS[-1])"


def test_it_is_that_of_the_checkout() -> None:
    assert page.static_folder() == Path(__file__).parents[2] / "apps" / "chat" / "static"


@pytest.mark.skipif(sys.platform == "win32", reason="there the user's folder has the version in its name")
def test_it_is_looked_for_beside_a_wheel_of_the_user_too(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONUSERBASE": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", FIND], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == str(tmp_path / "share" / "m3rag" / "chat")
