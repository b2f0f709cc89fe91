"""Why a hit matched, in whole words where they stand in its text, for people: to list and to highlight."""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from m3rag.encoder.protocol import Encoder
from m3rag.errors import ConfigurationError
from m3rag.legs import require_legs
from m3rag.retrieval.still_stored import lexical_weights
from m3rag.sentences import UNSPACED
from m3rag.types import Hit, Leg

if TYPE_CHECKING:
    from m3rag.encoder.explain import TokenEncoder
    from m3rag.store.protocol import Store

Span = tuple[int, int]


class WordMatch(NamedTuple):
    """A word of a passage that the lexical leg found in the question too.

    Attributes:
        start: Its first character in `chunk.text`.
        end: One past its last. A word of the headings stands before the text and has the empty span 0, 0.
        text: The word as it is written there.
        contribution: What its tokens gave to `hit.scores.lexical`, > 0.
    """

    start: int
    end: int
    text: str
    contribution: float


class WordAlignment(NamedTuple):
    """A word of a passage that ColBERT scores words of the question by.

    Attributes:
        start: Its first character in `chunk.text`.
        end: One past its last; a word of the headings has the empty span 0, 0.
        text: The word as it is written there.
        strength: In [0, 1]: how far its similarity stands out of what the rest of the passage has for
            that token of the question; 1 is the very same vector.
        query: The words of the question that it was chosen for, in their order.
    """

    start: int
    end: int
    text: str
    strength: float
    query: tuple[str, ...]


def matched_words(encoder: Encoder, query: str, hit: Hit, *, store: Store | None = None) -> list[WordMatch]:
    """The words behind a hit's lexical score, the largest contribution first, ties by place.

    A token counts once, however often it stands in the passage: with its largest weight, so it is shown
    at that place. The contributions sum to the score of the lexical leg, to the precision of what is stored.

    Args:
        encoder: The model; one that knows its tokens, such as `M3Encoder`.
        query: The question.
        hit: What was found for it.
        store: Where the hit's chunk is, so that the weights are those of the score. Without it, or where the
            chunk was removed since, it is weighed as if it stood alone, which an index with late chunking did not do.

    Raises:
        ConfigurationError: If the model gives no lexical weights, or the encoder does not know its tokens.
    """
    known = _token_encoder(encoder, "lexical", "words that match")
    text, shift = hit.chunk.encoded_text, len(hit.chunk.context)
    ids, spans = known.tokens(text, role="document")
    weights = known.token_weights(text, role="document")
    places: dict[int, int] = {}
    for at in np.lexsort((np.arange(len(ids)), -weights)).tolist():
        places.setdefault(int(ids[at]), at)
    question = encoder.encode_queries([query]).lexical
    if store is None:
        given = {int(i): float(w) * float(weights[places[int(i)]]) for i, w in _entries(question) if int(i) in places}
    else:
        (stored,) = lexical_weights(encoder, store, [hit])
        given = {int(i): float(w) for i, w in _entries(question.multiply(stored).tocsr())}
    words = _words(text)
    sums: dict[tuple[Span, str], float] = defaultdict(float)
    for token, contribution in given.items():
        at = places.get(token)
        # What is stored may hold a token that the text alone is not cut into.
        where = (0, 0) if at is None else _word_at(text, words, _span(spans, at))
        shown = encoder.token(token).lstrip("▁#") if at is None else text[slice(*where)]
        sums[_in_text(where, shift), shown] += contribution
    found = [WordMatch(*span, shown, total) for (span, shown), total in sums.items() if total > 0]
    return sorted(found, key=lambda word: (-word.contribution, word.start, word.text))


def aligned_words(encoder: Encoder, query: str, hit: Hit) -> list[WordAlignment]:
    """The words that ColBERT scores the question's tokens by, in the order of the passage.

    Special tokens and punctuation of the question are left out.

    Args:
        encoder: The model; one that knows its tokens, such as `M3Encoder`.
        query: The question.
        hit: What was found for it.

    Raises:
        ConfigurationError: If the model gives no token vectors, or the encoder does not know its tokens.
    """
    known = _token_encoder(encoder, "colbert", "words that ColBERT aligns")
    text, shift = hit.chunk.encoded_text, len(hit.chunk.context)
    query_spans, spans = known.tokens(query, role="query")[1], known.tokens(text, role="document")[1]
    # Empty spans are specials, and tokens without characters of their own.
    asked = [i for i, (start, end) in enumerate(query_spans.tolist()) if any(map(str.isalnum, query[start:end]))]
    held = np.flatnonzero(spans[:, 1] > spans[:, 0])
    if not asked or not len(held):
        return []
    vectors = encoder.encode_queries([query]).colbert.astype(np.float32)[asked]
    similarities = vectors @ encoder.encode_documents([text]).colbert.astype(np.float32)[held].T  # (asked, held)
    background = similarities.mean(axis=1)
    best = similarities.argmax(axis=1)
    room = np.maximum(1 - background, 1e-6)
    strengths = np.clip((similarities[np.arange(len(asked)), best] - background) / room, 0, 1)
    words, query_words = _words(text), _words(query)
    strongest: dict[tuple[Span, str], float] = {}
    chosen_for: dict[tuple[Span, str], dict[str, None]] = defaultdict(dict)
    for token, at, strength in zip(asked, held[best].tolist(), strengths.tolist(), strict=True):
        where = _word_at(text, words, _span(spans, at))
        key = _in_text(where, shift), text[slice(*where)]
        strongest[key] = max(strongest.get(key, 0.0), strength)
        chosen_for[key][query[slice(*_word_at(query, query_words, _span(query_spans, token)))]] = None
    found = [WordAlignment(*span, shown, s, tuple(chosen_for[span, shown])) for (span, shown), s in strongest.items()]
    return sorted(found)


def _token_encoder(encoder: Encoder, leg: Leg, what: str) -> TokenEncoder:
    require_legs(encoder.info, [leg], what=what, remedy="look at hit.scores.dense")
    if not (hasattr(encoder, "tokens") and hasattr(encoder, "token_weights")):
        raise ConfigurationError(
            f"the encoder {type(encoder).__name__} cannot tell its tokens, which {what} need: use an M3Encoder"
        )
    return cast("TokenEncoder", encoder)


def _entries(row: Any) -> list[tuple[int, float]]:
    """Ids and values of one sparse row."""
    return list(zip(row.indices.tolist(), row.data.tolist(), strict=True))


def _words(text: str) -> list[Span]:
    r"""Runs of letters, digits and the signs that belong to them, which `\w` leaves out in Indic scripts."""
    runs = groupby(range(len(text)), lambda i: unicodedata.category(text[i])[0] in "LNM")
    places = [list(run) for is_word, run in runs if is_word]
    return [(run[0], run[-1] + 1) for run in places]


def _word_at(text: str, words: Sequence[Span], token: Span) -> Span:
    """The word that a token is a part of; itself where the script sets no words apart, or it is a sign."""
    if UNSPACED.search(text, *token):
        return token
    at = bisect_right(words, token[0], key=lambda word: word[1])
    return words[at] if at < len(words) and words[at][0] < token[1] else token


def _in_text(span: Span, shift: int) -> Span:
    """A span of the encoded text as one of the chunk's text; empty for what stands in the headings."""
    return (span[0] - shift, span[1] - shift) if span[0] >= shift else (0, 0)


def _span(spans: npt.NDArray[np.int64], at: int) -> Span:
    return int(spans[at, 0]), int(spans[at, 1])
