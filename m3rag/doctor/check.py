"""One thing that was looked at, and what was found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["ok", "info", "warning", "error"]
"""How grave a finding is, see `Check`."""


@dataclass(frozen=True, slots=True)
class Check:
    """What a look at one thing found.

    Attributes:
        name: What was looked at, such as `index` or `disk`.
        severity: `ok`; `info` for what is optional or not there yet; `warning` for what works worse than
            it should; `error` for what does not work.
        message: For people.
        remedy: The command, or else the deed, that mends it; None where nothing needs mending.
    """

    name: str
    severity: Severity
    message: str
    remedy: str | None = None

    @property
    def is_problem(self) -> bool:
        """Whether something should be mended."""
        return self.severity in ("warning", "error")
