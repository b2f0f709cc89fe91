"""Which sentences of a passage may be quoted, and how much of a long one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from m3rag.output import FloatArray
from m3rag.sentences import CLOSERS, GREEK_QUESTION, REFERENCES, Span
from m3rag.types import Chunk

LONGEST = 400
"""Characters beyond which a sentence is cut to the words around what matched."""

# „Warum?“, »Warum?«, **Why?**, Why?! and Why?[3] are questions, too.
QUESTION = re.compile(rf"(?:[?？؟⁇⁈⁉፧]|{GREEK_QUESTION})[!?？“«*_`{re.escape(CLOSERS)}]*{REFERENCES}[*_\s]*$")
MARKDOWN_HEADING = re.compile(r"(#{1,6})[ \t]")
FENCE = re.compile(r"^[ \t]*(?:```|~~~)", re.MULTILINE)
NO_PROSE = re.compile(r"\s*(?:\||!\[|```|~~~)")  # a table, a picture, code
DEEPEST = 99


class Head(NamedTuple):
    """What a sentence is that stands above others.

    Attributes:
        level: 1 for the outermost heading.
        asks: Whether it is a question, which is no answer by itself.
    """

    level: int
    asks: bool


@dataclass(frozen=True, slots=True)
class Candidate:
    """A sentence that may be quoted."""

    evidence: float
    chunk: Chunk
    span: Span  # in the chunk's text
    sentence: Span  # the whole of it, where the span is a part

    @property
    def start(self) -> int:
        return self.chunk.start + self.span[0]

    @property
    def end(self) -> int:
        return self.chunk.start + self.span[1]

    def repeats(self, other: Candidate) -> bool:
        """Whether both show the same words: in overlapping chunks, or in two documents."""
        if self.chunk.document_id == other.chunk.document_id and self.start < other.end and other.start < self.end:
            return True
        return self.folded() == other.folded()

    def contains(self, other: Candidate) -> bool:
        """Whether the other stands within this one, in the same document; each contains itself."""
        same = self.chunk.document_id == other.chunk.document_id
        return same and self.start <= other.start and other.end <= self.end

    def with_cuts(self, shown: str) -> str:
        """The words as they are shown, and where the rest of their sentence is left out."""
        before = "… " if self.span[0] > self.sentence[0] else ""
        return before + shown + (" …" if self.span[1] < self.sentence[1] else "")

    def folded(self) -> str:
        return " ".join(self.chunk.text[self.span[0] : self.span[1]].casefold().split())


def below_heads(sentences: Sequence[Candidate]) -> list[Candidate]:
    """What may be quoted of a passage: the sentence below a heading or a question has the evidence of these as its own.

    A heading that nothing stands below, before the next of its level, may be quoted itself; a question may not.
    """
    kept: list[Candidate] = []
    above: list[tuple[Head, Candidate]] = []
    alone: list[tuple[Head, Candidate]] = []
    for one in sentences:
        head = _head(one.chunk, one.sentence)
        text = one.chunk.text[slice(*one.sentence)]
        if head is not None:
            alone += [other for other in above if other[0].level >= head.level]
            above = [*(other for other in above if other[0].level < head.level), (head, one)]
        elif NO_PROSE.match(text):
            kept.append(one)
            alone, above = alone + above, []
        elif any(map(str.isalnum, text)):
            kept.append(replace(one, evidence=max(one.evidence, *(other.evidence for _, other in above), -1.0)))
            above = []
    return kept + [one for head, one in alone + above if not head.asks]


def _head(chunk: Chunk, sentence: Span) -> Head | None:
    """What a heading of the passage is, or a question in a line of its own; None for all else."""
    before, text, behind = (
        chunk.text[part] for part in (slice(sentence[0]), slice(*sentence), slice(sentence[1], None))
    )
    if len(FENCE.findall(before)) % 2:
        return None  # a comment in code
    asks = QUESTION.search(text) is not None
    if heading := MARKDOWN_HEADING.match(text):
        return Head(len(heading[1]), asks)
    folded = " ".join(text.casefold().split())
    titles = [" ".join(title.casefold().split()) for title in chunk.headings]
    if folded in titles:
        return Head(titles.index(folded) + 1, asks)
    line = before.rpartition("\n")[2] + behind.partition("\n")[0]
    return Head(DEEPEST, asks) if asks and not any(map(str.isalpha, line)) else None


def window(text: str, sentence: Span, similarities: FloatArray, tokens: npt.NDArray[np.int64]) -> Span:
    """Cut an overlong sentence to the part where the question's tokens find their best match.

    Args:
        text: The passage.
        sentence: Its span in the text.
        similarities: `(q, t)` of the question's tokens and the sentence's.
        tokens: `(t, 2)` spans of the sentence's tokens in the text.

    Returns:
        A span inside the sentence of at most `LONGEST` characters. It begins and ends between
        words; between tokens in scripts that do not set words apart.
    """
    best = similarities.argmax(axis=1)
    weights = similarities.max(axis=1)
    starts = tokens[best, 0]
    ends = tokens[best, 1]
    # Row i: which matches a window that begins at match i would hold.
    held = (starts[None, :] >= starts[:, None]) & (ends[None, :] <= starts[:, None] + LONGEST)
    chosen = held[int((held * weights).sum(axis=1).argmax())]
    if not chosen.any():
        chosen[int(weights.argmax())] = True
    first, last = int(starts[chosen].min()), int(ends[chosen].max())
    slack = max(0, LONGEST - (last - first)) // 2
    start = min(max(first - slack, sentence[0]), max(sentence[1] - LONGEST, sentence[0]))
    end = min(start + LONGEST, sentence[1])
    words = np.array([(m.start(), m.end()) for m in re.finditer(r"\S+", text[sentence[0] : sentence[1]])]) + sentence[0]
    for pieces in (words, tokens):
        inside = pieces[(pieces[:, 0] >= start) & (pieces[:, 1] <= end)]
        if len(inside) and inside[0, 0] <= first and inside[-1, 1] >= last:
            return int(inside[0, 0]), int(inside[-1, 1])
    return start, end
