"""A language model's reply as it comes: only what stays as it is gets shown, and what is cited is checked."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from langchain_core.messages.content import Citation, create_citation

from m3rag.answering.citations import PageOf, best_quote, cut_out, find_marks, quotation, without_dead_marks
from m3rag.answering.prompt import SENTINEL, is_refusal, may_become_refusal
from m3rag.answering.protocol import NO_ANSWER_TEXT
from m3rag.answering.thinking import ThinkingFilter
from m3rag.sentences import sentence_spans
from m3rag.types import Chunk
from m3rag.types import Citation as Quote

FENCE = "```"
UNFINISHED_MARK = re.compile(r"(?:\s*[\[【［〔][\s\d^,，、;；–—-]*)+$")
INLINE_CODE = re.compile(r"`[^`\n]+`")
SIGN = SENTINEL.casefold()
LONGEST_SIGN = len(SENTINEL) + SENTINEL.count("_")
"""The sign of refusal with a backslash before each underscore, as Markdown writes it."""


@dataclass(frozen=True, slots=True)
class CheckedReply:
    """A whole reply.

    Attributes:
        text: Its marks all name a passage shown to the model: `[n]` is `passages[n - 1]`.
        citations: One for each mark and passage, in the order of the marks.
        answered: False where the model gave the sign of refusal.
    """

    text: str
    citations: tuple[Citation, ...]
    answered: bool


class ReplyChecker:
    """Takes a reply in pieces and gives out the text to show, also in pieces.

    What was given out is never taken back: the pieces together are the checked text, however the
    reply was cut. So a mark is held back until it is whole, and dropped where it names no passage;
    text that may turn out to be the sign of refusal is held back too. A model's thinking is left out.

    Args:
        passages: What the model was shown, in the order it was numbered.
        page_of: Looks up the page of a quote; without it a quote has the page its passage starts on.
    """

    def __init__(self, passages: Sequence[Chunk], *, page_of: PageOf | None = None) -> None:
        self.passages = passages
        self.page_of = page_of
        self.shown = ""
        self.refused = False
        self._answer = ThinkingFilter()
        self._beginning: str | None = ""  # None once the reply is known not to begin with the sign
        self._recent = ""
        self._line = ""  # raw text since the last line break or fence
        self._given = 0  # characters of the checked line that were given out
        self._blank = ""  # white space that is given out with what follows it
        self._in_fence = False

    def feed(self, piece: str) -> str:
        """Take the next piece of the reply; returns what may be shown now, often nothing."""
        return self._feed(self._answer.feed(piece))

    def _feed(self, piece: str) -> str:
        self._recent = self._recent[-LONGEST_SIGN:] + piece
        self.refused = self.refused or is_refusal(self._recent)
        if self._beginning is not None:
            self._beginning += piece
            if may_become_refusal(self._beginning):
                return ""
            piece, self._beginning = self._beginning, None
        if self.refused:
            return ""
        self._line += piece
        return self._show("".join(self._units()) + self._rest(whole=False))

    def finish(self) -> str:
        """The reply is over; returns what was still held back, or the sentence that says there is no answer."""
        shown = self._feed(self._answer.finish())
        if self.refused:
            text = f"\n\n{NO_ANSWER_TEXT}" if self.shown else NO_ANSWER_TEXT
            self.shown += text
            return text
        self._line += self._beginning or ""
        self._beginning = None
        return shown + self._show("".join(self._units(whole=True)) + self._rest(whole=True))

    def checked(self) -> CheckedReply:
        """The reply, once it is over."""
        citations = () if self.refused else cited(self.shown, self.passages, page_of=self.page_of)
        return CheckedReply(self.shown, citations, not self.refused)

    def _units(self, *, whole: bool = False) -> Iterator[str]:
        """What is left to show of the lines and code blocks that are whole; the line under way stays."""
        while True:
            # A run of backticks at the end may grow into a fence.
            settled = len(self._line) if whole else len(self._line.rstrip("`"))
            fence = self._line.find(FENCE)
            if fence >= 0 and fence + len(FENCE) > settled and not whole:
                fence = -1
            newline = -1 if self._in_fence else self._line.find("\n", 0, fence if fence >= 0 else settled)
            if newline < 0 and fence < 0:
                return
            end = newline + 1 if newline >= 0 else fence
            unit, self._line = self._line[:end], self._line[end:]
            yield (unit if self._in_fence else self._checked(unit))[self._given :]
            self._given = 0
            if newline < 0:
                yield FENCE
                self._line = self._line[len(FENCE) :]
                self._in_fence = not self._in_fence

    def _rest(self, *, whole: bool) -> str:
        """What can be shown of the line under way."""
        line = self._line
        if not whole:
            line = line.rstrip("`")
            if not self._in_fence:
                line = line[: _open_code(line)]
        shown = line if self._in_fence else self._checked(line)
        if not whole:
            shown = shown[: _unsettled(shown)]
        new = shown[self._given :]
        self._given += len(new)
        return new

    def _checked(self, line: str) -> str:
        """A line with its marks in the form `[1][2]`, and without those that name no passage."""
        line = without_dead_marks(line, len(self.passages))
        text, last = "", 0
        for mark in find_marks(line, len(self.passages)):
            text += line[last : mark.start] + "".join(f"[{passage + 1}]" for passage in mark.passages)
            last = mark.end
        return text + line[last:]

    def _show(self, text: str) -> str:
        text = self._blank + text
        kept = text.rstrip()
        self._blank = text[len(kept) :]
        if not self.shown:
            kept = kept.lstrip()
            self._blank = self._blank if kept else ""
        self.shown += kept
        return kept


def cited(text: str, passages: Sequence[Chunk], *, page_of: PageOf | None = None) -> tuple[Citation, ...]:
    """LangChain's citations of an answer whose marks are checked.

    Args:
        text: The answer; `[n]` means `passages[n - 1]`.
        passages: What it was made from.
        page_of: As for `ReplyChecker`.

    Returns:
        For each mark and passage the quote that supports the marked sentence best (`cited_text`), where
        that sentence stands in the answer with its mark (`start_index`, `end_index`), and in `extras`
        `number` (the n of the mark), `document_id`, `page` (left out where there is none), `start` and
        `end` of the quote in the document's text, and `chunk_id`.
    """
    marks = list(find_marks(text, len(passages)))
    plain, positions = cut_out(text, marks)
    sentences = sentence_spans(plain)
    found: list[Citation] = []
    for mark, position in zip(marks, positions, strict=True):
        # Marks may follow the stop: the last sentence to begin before one bears it.
        begin, end = ([span for span in sentences if span[0] < position] or [*sentences, (0, 0)][:1])[-1]
        cut = [(place, m.end - m.start) for place, m in zip(positions, marks, strict=True)]
        start_index = begin + sum(length for place, length in cut if place <= begin)
        end_index = end + sum(length for place, length in cut if place < end)
        for passage in mark.passages:
            span = best_quote(plain[begin:end], passages[passage].text)
            quote = quotation(passages[passage], span, number=passage + 1, page_of=page_of)
            found.append(_citation(quote, min(start_index, mark.start), max(end_index, mark.end)))
    return tuple(found)


def _citation(quote: Quote, start_index: int, end_index: int) -> Citation:
    return create_citation(
        title=quote.document_id,
        start_index=start_index,
        end_index=end_index,
        cited_text=quote.quote,
        number=quote.number,
        document_id=quote.document_id,
        page=quote.page,
        start=quote.start,
        end=quote.end,
        chunk_id=quote.chunk_id,
    )


def _open_code(line: str) -> int:
    """Where a backtick stands whose closing one may still come, else the end of the line."""
    last = 0
    for match in INLINE_CODE.finditer(line):
        stray = line.find("`", last, match.start())
        if stray >= 0:
            return stray
        last = match.end()
    stray = line.find("`", last)
    return stray if stray >= 0 else len(line)


def _unsettled(text: str) -> int:
    """Where white space, a mark or a sign of refusal begins that what follows may change, else the end."""
    unfinished = UNFINISHED_MARK.search(text)
    end = unfinished.start() if unfinished else len(text.rstrip())
    for length in range(min(LONGEST_SIGN, len(text)), 0, -1):
        tail = text[-length:].replace("\\_", "_").casefold()
        if SIGN.startswith(tail.removesuffix("\\")):
            return min(end, len(text) - length)
    return end
