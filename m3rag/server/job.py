"""One upload on its way into the index, as clients see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["queued", "reading", "encoding", "done", "unchanged", "failed"]

ENDED: tuple[State, ...] = ("done", "unchanged", "failed")


@dataclass(slots=True)
class Job:
    """One upload on its way into the index.

    Attributes:
        id: Random.
        name: The name shown, which becomes the document's id.
        state: Where it is.
        done: Chunks written.
        total: Chunks to write; 0 until it has been read.
        message: Why it failed, or what a person should know.
        document_id: The document, when it is in the index.
        can_retry: Whether its file is kept although it failed, so that it can be tried again.
    """

    id: str
    name: str
    state: State = "queued"
    done: int = 0
    total: int = 0
    message: str = ""
    document_id: str | None = None
    can_retry: bool = False

    @property
    def ended(self) -> bool:
        """Whether nothing more happens by itself."""
        return self.state in ENDED
