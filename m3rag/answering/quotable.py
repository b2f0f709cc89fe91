"""Which sentences of a passage may be quoted, and how much of a long one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from m3rag.output import FloatArray
from m3rag.sentences import CLOSERS, GREEK_QUESTION, Span
from m3rag.types import Chunk

LONGEST = 400
"""Characters beyond which a sentence is cut to the words around what matched."""

QUESTION = re.compile(rf"(?:[?？؟⁇⁈⁉]|{GREEK_QUESTION})[{re.escape(CLOSERS)}“«]*\s*$")  # „Warum?“, »Warum?«
MARKDOWN_HEADING = re.compile(r"#{1,6}[ \t]")


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
    """The sentences of a passage without headings and questions, whose evidence the next one has as its own."""
    kept: list[Candidate] = []
    lent = -1.0
    for one in sentences:
        if _is_head(one.chunk, one.sentence):
            lent = max(lent, one.evidence)
        else:
            kept.append(replace(one, evidence=max(one.evidence, lent)))
            lent = -1.0
    return kept


def _is_head(chunk: Chunk, sentence: Span) -> bool:
    """Whether a sentence is a question, or a heading of its passage."""
    text = chunk.text[slice(*sentence)]
    folded = " ".join(text.casefold().split())
    titles = {" ".join(title.casefold().split()) for title in chunk.headings}
    return folded in titles or MARKDOWN_HEADING.match(text) is not None or QUESTION.search(text) is not None


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
