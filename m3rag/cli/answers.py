"""An answer as people and programs are shown it, and as it is being written."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from types import TracebackType
from typing import TYPE_CHECKING, Any

from m3rag.cli.console import in_line, one_line, place, printable, say

if TYPE_CHECKING:
    from m3rag.answering import AnswerEvent
    from m3rag.types import Answer, Citation, Hit


def answer_dict(question: str, answer: Answer) -> dict[str, Any]:
    """An answer for `--json`."""
    return {
        "question": question,
        "answered": answer.answered,
        "text": answer.text,
        "support": answer.support,
        "citations": [asdict(citation) for citation in answer.citations],
    }


def print_answer(answer: Answer) -> None:
    """The answer, then for each citation where it stands, and its words."""
    say(answer.text)
    if not answer.answered and answer.hits:
        nearest = answer.hits[0].chunk
        say(f"Nearest passage: {place(nearest.document_id, nearest.page)}")
    if answer.answered and not answer.citations:
        say("(no source backs this answer)")
    if answer.citations:
        say()
    for citation in answer.citations:
        say(f"[{citation.number}] {where(citation)}")
        say(f"    {one_line(citation.quote, 200)}")


def where(citation: Citation) -> str:
    """Where a quote stands, for people."""
    page = f", p. {citation.page}" if citation.page is not None else ""
    return f"{in_line(citation.document_id)}{page}, characters {citation.start}-{citation.end}"


def last_of(events: Iterator[AnswerEvent], *, preview: bool) -> Answer:
    """The answer that a stream ends with; with `preview` its text is shown on stderr as it comes, then taken away.

    The text in a stream is as the model wrote it; the marks of the answer are checked and renumbered.
    So the answer replaces it, and what goes to stdout is the same with and without a terminal.
    """
    with Preview() if preview and sys.stderr.isatty() else nullcontext() as shown:
        for event in events:
            if not isinstance(event, str):
                return event
            if shown is not None:
                shown.add(event)
    raise AssertionError("an answer ends its stream")


class Preview:
    """The end of a growing text, as much of it as a terminal has room for, on stderr."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(stderr=True, highlight=False)
        self._live = Live(console=self._console, transient=True, redirect_stdout=False, redirect_stderr=False)
        self._text = ""

    def __enter__(self) -> Preview:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def add(self, piece: str) -> None:
        """Show a further piece."""
        from rich.text import Text

        self._text += printable(piece)
        width, height = self._console.size
        lines = Text(self._text[-4 * width * height :]).wrap(self._console, width)
        self._live.update(Text("\n").join(lines[-max(1, height - 2) :]))


def numbered(answer: Answer) -> Sequence[Hit]:
    """The passages behind an answer in the order of their numbers: those cited as they are cited, then the rest.

    Number `n` of a cited passage is that of its citation, so that a passage cited twice stands here twice.
    """
    by_id = {hit.chunk.id: hit for hit in answer.hits}
    cited = [by_id[citation.chunk_id] for citation in answer.citations if citation.chunk_id in by_id]
    seen = {hit.chunk.id for hit in cited}
    return [*cited, *(hit for hit in answer.hits if hit.chunk.id not in seen)]
