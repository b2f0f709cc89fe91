"""Environment variables that look like settings and are none: a typing error there would pass in silence."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches

PREFIX = "M3RAG_"

NO_SETTINGS = frozenset({"M3RAG_CACHE"})
"""Variables of ours that are no settings, since they are read where no settings are."""


@dataclass(frozen=True, slots=True)
class UnknownVariable:
    """A variable of the environment that nothing reads.

    Attributes:
        name: Its name.
        nearest: The variable that was meant, if one is near.
    """

    name: str
    nearest: str | None

    @property
    def message(self) -> str:
        """For people."""
        meant = f": did you mean {self.nearest}?" if self.nearest else "; `m3rag config show` lists all settings"
        return f"the environment variable {self.name} is no setting of m3rag{meant}"


def unknown_variables(environment: Mapping[str, str] | None = None) -> list[UnknownVariable]:
    """The variables named `M3RAG_...` that nothing reads, ordered by name.

    Args:
        environment: By default that of this process.
    """
    given = os.environ if environment is None else environment
    ours = sorted(name for name in given if name.upper().startswith(PREFIX))
    if not ours:
        return []
    # Imported here: every command asks, also one that needs no settings.
    from m3rag.settings import setting_names, variable_of  # noqa: PLC0415

    names = setting_names()
    known = {variable_of(name) for name in names} | NO_SETTINGS
    # A whole group may be given as JSON: M3RAG_LLM='{"model": "..."}'.
    known |= {variable_of(name.partition(".")[0]) for name in names}
    return [
        UnknownVariable(name, next(iter(get_close_matches(name.upper(), sorted(known), n=1, cutoff=0.75)), None))
        for name in ours
        if name.upper() not in known
    ]
