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
OPENING = "[【［〔"
IN_A_MARK = OPENING + "^,，、;；–—-"
INLINE_CODE = re.compile(r"`[^`\n]+`")
BETWEEN_WORDS = re.compile(r"(?<=[^\W\d_][ 。，])(?=[^\W\d_])")
"""A place in a line that no mark spans, and across which none looks."""
LONG = 256
"""Characters of a line without two words from which it is checked again only as it has grown by an eighth."""
SIGN = SENTINEL.casefold()
LONGEST_SIGN = len(SENTINEL) + SENTINEL.count("_")
"""The sign of refusal with a backslash before each underscore, as Markdown writes it."""


@dataclass(frozen=True, slots=True)
class CheckedReply:
    """A whole reply.

    Attributes:
        text: Its marks all name a passage shown to the model: `[n]` is `passages[n - 1]`.
        citations: One for each mark and passage, in the order of the marks.
        answered: False where the model gave the sign of refusal, or no word beside marks that name no passage.
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
        self._line = ""  # raw text since the last line break, fence or place between words
        self._given = 0  # characters of the checked line that were given out
        self._due = 0  # characters that it must have to be checked again
        self._blank = ""  # white space, and signs before the first word: given out with what follows
        self._replied = False
        self._in_fence = False

    def feed(self, piece: str) -> str:
        """Take the next piece of the reply; returns what may be shown now, often nothing."""
        return self._feed(self._answer.feed(piece))

    def _feed(self, piece: str) -> str:
        self._replied = self._replied or bool(piece.strip())
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
        shown = "".join(self._units())
        if len(self._line) >= self._due:
            shown += self._rest(whole=False)
            self._due = len(self._line) * 9 // 8 if len(self._line) >= LONG else 0
        return self._show(shown)

    def finish(self) -> str:
        """The reply is over; returns what was still held back, or the sentence that says there is no answer."""
        shown = self._feed(self._answer.finish())
        if not self.refused:
            self._line += self._beginning or ""
            self._beginning = None
            shown += self._show("".join(self._units(whole=True)) + self._rest(whole=True))
            self.refused = self._replied and not self.shown
            if not self.refused:
                return shown
        text = f"\n\n{NO_ANSWER_TEXT}" if self.shown else NO_ANSWER_TEXT
        self.shown += text
        return text

    def checked(self) -> CheckedReply:
        """The reply, once it is over."""
        citations = () if self.refused else cited(self.shown, self.passages, page_of=self.page_of)
        return CheckedReply(self.shown, citations, not self.refused)

    def _units(self, *, whole: bool = False) -> Iterator[str]:
        """What is left to show of the lines, words and code blocks that are whole; the rest stays under way."""
        while True:
            # A run of backticks at the end may grow into a fence.
            settled = len(self._line) if whole else len(self._line.rstrip("`"))
            fence = self._line.find(FENCE)
            if fence >= 0 and fence + len(FENCE) > settled and not whole:
                fence = -1
            end = 0 if self._in_fence else self._line.find("\n", 0, fence if fence >= 0 else settled) + 1
            if not end and fence < 0 and not self._in_fence:
                end = _between_words(self._line[:settled])
            if not end and fence < 0:
                return
            unit, self._line = self._line[: end or fence], self._line[end or fence :]
            yield (unit if self._in_fence else self._checked(unit))[self._given :]
            self._given = self._due = 0
            if not end:
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
        text = self._blank + text if self.shown else (self._blank + text).lstrip()
        kept = text.rstrip() if self.shown or any(map(str.isalnum, text)) else ""
        self._blank = text[len(kept) :]
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


def _between_words(line: str) -> int:
    """The last place between two words behind which no code is open and no code stands, 0 where there is none."""
    settled = _open_code(line)
    code = line.rfind("`", 0, settled) + 1
    return max((place.start() for place in BETWEEN_WORDS.finditer(line, code, settled)), default=0)


def _unsettled(text: str) -> int:
    """Where white space, a mark or a sign of refusal begins that what follows may change, else the end."""
    # By hand: a regular expression for several unfinished marks, one in another, backtracks for ever.
    begin = len(text)
    while begin and (text[begin - 1] in IN_A_MARK or text[begin - 1].isspace() or text[begin - 1].isdecimal()):
        begin -= 1
    opening = min((at for sign in OPENING if (at := text.find(sign, begin)) >= 0), default=len(text))
    end = len(text[:opening].rstrip())
    for length in range(min(LONGEST_SIGN, len(text)), 0, -1):
        tail = text[-length:].replace("\\_", "_").casefold()
        if SIGN.startswith(tail.removesuffix("\\")):
            return min(end, len(text) - length)
    return end
