"""Commands as a person can paste them."""

from __future__ import annotations

import os
import shlex
import subprocess


def quoted(argument: object) -> str:
    """An argument of a command that is shown, as the shell of this machine takes it."""
    text = str(argument)
    if os.name == "nt":  # there a single quote is a sign like any other
        return subprocess.list2cmdline([text])
    return shlex.quote(text)
