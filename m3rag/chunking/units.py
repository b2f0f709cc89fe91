"""The pieces of a text that chunking never cuts, how many tokens each has, and where the text pauses."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from m3rag.chunking.blocks import solid_blocks
from m3rag.sentences import sentence_spans

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
CodePoints = npt.NDArray[np.uint32]

# How strongly a text pauses before a unit.
WORD, LINE, SENTENCE, PARAGRAPH, HEADING = range(5)

# Scripts written without spaces: Thai to Myanmar, Khmer, Tai, CJK with its punctuation and full-width forms.
UNSPACED = np.array(
    [
        (0x0E00, 0x109F),
        (0x1780, 0x17FF),
        (0x1950, 0x19FF),
        (0x1A20, 0x1AAF),
        (0x2E80, 0x312F),
        (0x31A0, 0x9FFF),
        (0xA980, 0xA9DF),
        (0xAA60, 0xAA7F),
        (0xF900, 0xFAFF),
        (0xFE30, 0xFE4F),
        (0xFF00, 0xFFEF),
        (0x1B000, 0x1B16F),
        (0x20000, 0x3FFFF),
    ],
    np.uint32,
)
# No line of these scripts begins with a mark, a closing bracket or a full stop, and no chunk does.
STICKY = frozenset({"Mn", "Mc", "Me", "Cf", "Pe", "Pf", "Po"})


@dataclass(frozen=True, slots=True, eq=False)
class Units:
    """A text as units in order: words, cut further where a script has no spaces or a word is too long.

    Attributes:
        starts: First character of each unit, `(units,)`.
        ends: One past its last character that is not white space.
        before: Tokens before each unit, and in all, `(units + 1,)`.
        strength: How strongly the text pauses before each unit, and at its end, `(units + 1,)`.
        blocks: Tables, lists and code in order, as half-open ranges of units, `(blocks, 2)`.
    """

    starts: Ints
    ends: Ints
    before: Ints
    strength: npt.NDArray[np.int8]
    blocks: Ints

    @classmethod
    def of(cls, text: str, spans: Ints, *, budget: int) -> Units:
        """Take a text apart.

        Args:
            text: The whole text.
            spans: Its tokens, `(tokens, 2)`; a token with an empty span counts like any other.
            budget: The most tokens of a unit, unless more begin at a single character.
        """
        points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4").astype(np.uint32)
        blank = _white()[np.minimum(points, len(_white()) - 1)]
        edges = np.diff(np.concatenate([[True], blank, [True]]).astype(np.int8))
        words, word_ends = np.flatnonzero(edges == -1), np.flatnonzero(edges == 1)
        tokens = spans.reshape(-1, 2)[:, 0]
        inner = np.setdiff1d(tokens[_within(tokens, words, word_ends)], words)
        starts = np.union1d(words, _free_cuts(points, inner))
        counts = _counts(tokens, starts)
        if len(starts) and counts.max() > budget:
            owner = np.searchsorted(starts, inner, "right") - 1
            starts = np.union1d(starts, inner[counts[owner] > budget])
            counts = _counts(tokens, starts)
        following = np.concatenate([starts[1:], [len(text)]])[: len(starts)]
        ends = np.minimum(word_ends[np.searchsorted(words, starts, "right") - 1], following)
        before = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        blocks = np.searchsorted(starts, np.array(solid_blocks(text), np.int64).reshape(-1, 2)).astype(np.int64)
        return cls(starts, ends, before, _strength(text, points, starts, ends), blocks)

    def __len__(self) -> int:
        return len(self.starts)

    def tokens(self, first: int, last: int) -> int:
        """Tokens of the units `[first, last)`."""
        return int(self.before[last] - self.before[first])

    def reach(self, first: int, room: int) -> int:
        """The largest `last` for which the units `[first, last)` have at most `room` tokens."""
        return int(np.searchsorted(self.before, self.before[first] + room, "right")) - 1

    def at(self, position: int) -> int:
        """The first unit that starts at the position or after it."""
        return int(np.searchsorted(self.starts, position, "left"))

    def block_across(self, cut: int) -> tuple[int, int] | None:
        """The table, list or code that a cut before a unit would part."""
        at = int(np.searchsorted(self.blocks[:, 0], cut, "left")) - 1
        return self._block(at) if at >= 0 and self.blocks[at, 1] > cut else None

    def block_at(self, first: int) -> tuple[int, int] | None:
        """The table, list or code that begins with a unit."""
        at = int(np.searchsorted(self.blocks[:, 0], first, "left"))
        return self._block(at) if at < len(self.blocks) and self.blocks[at, 0] == first else None

    def _block(self, at: int) -> tuple[int, int]:
        return int(self.blocks[at, 0]), int(self.blocks[at, 1])


@cache
def _white() -> Flags:
    """By code point; the last entry, which stands for all above, is not white space."""
    return np.array([chr(c).isspace() for c in range(0x3002)], bool)


def _within(positions: Ints, starts: Ints, ends: Ints) -> Flags:
    if not len(starts):
        return np.zeros(len(positions), bool)
    owner = np.searchsorted(starts, positions, "right") - 1
    return (owner >= 0) & (positions < ends[np.maximum(owner, 0)])


def _counts(tokens: Ints, starts: Ints) -> Ints:
    """Tokens of each unit; one that stands in white space, as a lone `▁` does, is its predecessor's."""
    if not len(starts):
        return np.zeros(0, np.int64)
    owner = np.maximum(np.searchsorted(starts, tokens, "right") - 1, 0)
    return np.bincount(owner, minlength=len(starts)).astype(np.int64)


def _free_cuts(points: CodePoints, inner: Ints) -> Ints:
    """Of the token starts within words, those where a script without spaces may be cut."""
    if not len(inner):
        return inner
    sticky = _by_point(points[inner], lambda c: unicodedata.category(c) in STICKY)
    return inner[(_unspaced(points[inner]) | _unspaced(points[inner - 1])) & ~sticky]


def _unspaced(points: CodePoints) -> Flags:
    at = np.searchsorted(UNSPACED[:, 0], points, "right") - 1
    found: Flags = (at >= 0) & (points <= UNSPACED[np.maximum(at, 0), 1])
    return found


def _by_point(points: CodePoints, law: Callable[[str], bool]) -> Flags:
    """A law of single characters, asked once for each distinct one."""
    distinct, inverse = np.unique(points, return_inverse=True)
    return np.array([law(chr(c)) for c in distinct], bool)[inverse]


def _strength(text: str, points: CodePoints, starts: Ints, ends: Ints) -> npt.NDArray[np.int8]:
    strength = np.zeros(len(starts) + 1, np.int8)
    if len(starts) < 2:
        return strength
    lines = np.concatenate([[0], np.cumsum(points == ord("\n"))])
    breaks = lines[starts[1:]] - lines[ends[:-1]]
    sentences = np.array(sentence_spans(text), np.int64).reshape(-1, 2)[:, 0]
    inner = strength[1:-1]
    inner[breaks > 0] = LINE
    inner[np.isin(starts[1:], sentences)] = SENTENCE
    inner[breaks > 1] = PARAGRAPH
    return strength
