"""Where the files lie that a wheel brings beside the package."""

from __future__ import annotations

import sysconfig
from pathlib import Path


def shared_data(name: str) -> tuple[Path, ...]:
    """Where a folder of them may be: beside an installed wheel, or one that was installed with --user."""
    schemes = (sysconfig.get_default_scheme(), sysconfig.get_preferred_scheme("user"))
    return tuple(Path(sysconfig.get_path("data", scheme)) / "share" / "m3rag" / name for scheme in schemes)
