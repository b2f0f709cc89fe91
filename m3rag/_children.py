"""Child processes: why one has ended, as errors say it."""

from __future__ import annotations

import signal


def cause_of(code: int | None) -> str:
    """The name of the signal or the exit status behind a return code; None is that of a child that still runs."""
    if code is None:
        return "no reply"
    if code < 0:
        try:
            return signal.Signals(-code).name
        except ValueError:
            return f"signal {-code}"
    return f"exit status {code}"
