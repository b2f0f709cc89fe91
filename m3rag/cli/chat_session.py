"""A conversation over an index: what was asked and answered, and how the next question is searched for."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from m3rag.cli.answers import answer_dict, last_of, print_answer, where
from m3rag.cli.chat_commands import obey
from m3rag.cli.console import note, print_json, say, typed
from m3rag.cli.options import parse_filters

if TYPE_CHECKING:
    from m3rag.knowledge_base import KnowledgeBase
    from m3rag.types import Answer


class Session:
    """One conversation.

    Args:
        kb: What is asked.
        filters: `KEY=VALUE` each, which hold until others are given.
        as_json: Print answers as JSON, one a line.

    Attributes:
        asked: Questions with their answers, oldest first.
        searched: What was searched for last: the last question, made to stand by itself.
        mode: Which legs a search looks at.
        tell: Print what a command says: beside JSON on stderr, which has answers alone on stdout.
    """

    def __init__(self, kb: KnowledgeBase, *, filters: list[str] | None = None, as_json: bool = False) -> None:
        self.kb = kb
        self.filters = filters or []
        self.as_json = as_json
        self.tell = note if as_json else say
        self.mode = kb.mode.value
        self.asked: list[tuple[str, Answer]] = []
        self.searched = ""

    def take(self, line: str) -> bool:
        """Answer a question or obey a command; False ends the conversation.

        What stops an answer (Ctrl-C, an error) leaves the conversation as it was before it.
        """
        if not line.strip():
            return True
        if line.startswith("/"):
            return obey(self, line.strip())
        self._ask(typed(line.strip(), sys.stdin.encoding))
        return True

    def _ask(self, question: str) -> None:
        from m3rag.answering import Turn

        history = [Turn(asked, answer.text) for asked, answer in self.asked]
        searched = self.kb.standalone(question, history)
        if searched != question:
            note(f"(searched for: {searched})")
        passages = self.kb.passages(searched, mode=self.mode, filter=parse_filters(self.filters) or None)
        answer = last_of(self.kb.answerer.stream(searched, passages), preview=not self.as_json)
        self.asked.append((question, answer))
        self.searched = searched
        if self.as_json:
            print_json("answer", answer_dict(question, answer))
        else:
            print_answer(answer)
            say()

    def answer(self) -> Answer:
        """The last answer.

        Raises:
            InputError: If there is none yet.
        """
        from m3rag.errors import InputError

        if not self.asked:
            raise InputError("nothing has been asked yet: ask in a line")
        return self.asked[-1][1]

    def clear(self) -> None:
        """Forget what was asked."""
        self.asked.clear()
        self.searched = ""

    def transcript(self) -> str:
        """The conversation in Markdown: questions as headings, answers, and what they quote."""
        parts = []
        for question, answer in self.asked:
            parts += [f"## {' '.join(question.split())}", answer.text]
            for citation in answer.citations:
                parts += [f"[{citation.number}] {where(citation)}", f"> {' '.join(citation.quote.split())}"]
        return "\n\n".join(parts) + "\n" if parts else ""
