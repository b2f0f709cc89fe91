"""How BM25 splits texts: words of any language, the English pipeline, the encoder's own tokens."""

from __future__ import annotations

import importlib
import importlib.util
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby, pairwise

from m3rag.bm25.backends import package
from m3rag.encoder.protocol import Encoder

Tokenize = Callable[[str], Sequence[str]]
"""Splits a text into tokens, in its order."""

# Scripts that put no space between words (and Hangul, whose words carry their particles):
# Thai, Lao, Myanmar, Hangul, Khmer, Kana with its marks, Han, and their extensions and half forms.
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3130-\u318f\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97f\uaa60-\uaa7f\uac00-\ud7ff\uf900-\ufaff\uff66-\uffdc"
    "\U0001b000-\U0001b16f\U00020000-\U0003ffff"
)

SPACED_END = 0x20000  # what comes after is Han, and no letters


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """A way to split texts, with the name under which its tokens are kept.

    Attributes:
        name: Changes whenever the tokens of any text would; tokens kept under another are not used.
        split: The tokens of a text, in order.
    """

    name: str
    split: Tokenize

    def __call__(self, text: str) -> Sequence[str]:
        """The tokens of a text, in order."""
        return self.split(text)


def word_tokenizer() -> Tokenizer:
    """Words of any language: compatibility forms unified (NFKC), case folded, marks kept with their letters.

    Scripts that put no space between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese) and Korean
    are cut into each pair of neighbouring characters, as Lucene's CJK analyzer does, and each
    character by itself, so that a question of one character finds its text.
    """
    return Tokenizer(f"words-1 unicode-{unicodedata.unidata_version}", _words)


def english_tokenizer() -> Tokenizer:
    """The English pipeline of bm25s: lower case, words of two letters and more, English stop words.

    Words are stemmed (Snowball) where the package `PyStemmer` is installed, as MTEB does, and left
    as they are where it is not; `is_stemming()` says which.

    Raises:
        ImportError: If bm25s is not installed.
    """
    bm25s = package("bm25s")
    stemmer = importlib.import_module("Stemmer").Stemmer("english") if is_stemming() else None

    def tokenize(text: str) -> list[str]:
        words: list[list[str]] = bm25s.tokenize(
            [text], stopwords="en", stemmer=stemmer, return_ids=False, show_progress=False
        )
        return words[0]

    return Tokenizer(f"english-1 bm25s-{bm25s.__version__} {'' if stemmer else 'not '}stemmed", tokenize)


def is_stemming() -> bool:
    """Whether the English pipeline stems: only where `PyStemmer` is installed."""
    return importlib.util.find_spec("Stemmer") is not None


def encoder_tokenizer(encoder: Encoder) -> Tokenizer:
    """The encoder's own tokens, of one Unicode form and case folded: for every language that the model knows."""

    def tokenize(text: str) -> list[str]:
        folded = _folded(text)
        return [piece for start, end in encoder.word_spans(folded).tolist() if (piece := folded[start:end])]

    return Tokenizer(f"encoder-2 {encoder.info.fingerprint}", tokenize)


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def _words(text: str) -> list[str]:
    return [token for match in _pattern().finditer(_folded(text)) for token in _tokens(match)]


def _tokens(match: re.Match[str]) -> Iterator[str]:
    run = match["unspaced"]
    if run is None:
        yield match[0]
    else:
        yield from run
        yield from map("".join, pairwise(run))


@lru_cache(maxsize=1)
def _pattern() -> re.Pattern[str]:
    # Python's \w leaves out the marks that Indic, Arabic and other words are full of.
    unspaced = re.compile(f"[{UNSPACED}]")
    characters = (c for c in map(chr, range(SPACED_END)) if c.isalnum() or unicodedata.category(c)[0] == "M")
    spaced = [ord(c) for c in characters if not unspaced.match(c)]
    # In two classes, since Python's re looks a character up only in one that keeps within 16 bits.
    common, rare = _ranges(c for c in spaced if c < 0x10000), _ranges(c for c in spaced if c >= 0x10000)
    return re.compile(f"(?:[{common}]+|[{rare}]+)+|(?P<unspaced>[{UNSPACED}]+)")


def _ranges(codes: Iterable[int]) -> str:
    """The inside of a character class."""
    runs = (list(run) for _, run in groupby(enumerate(codes), key=lambda pair: pair[1] - pair[0]))
    return "".join(f"\\U{run[0][1]:08x}-\\U{run[-1][1]:08x}" for run in runs)
