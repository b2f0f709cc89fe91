"""Which tokens of a question a hit matched, and what each gave to its scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
from scipy.sparse import csr_array

from m3rag.encoder.protocol import Encoder
from m3rag.errors import ConfigurationError, InputError
from m3rag.legs import require_legs
from m3rag.retrieval.still_stored import lexical_weights
from m3rag.store.protocol import Store
from m3rag.types import Hit

if TYPE_CHECKING:
    from m3rag.encoder.explain import TokenAlignment, TokenEncoder


class TokenMatch(NamedTuple):
    """A token that stands in the query and in the passage, and the product of its two weights."""

    token: str
    contribution: float


def top_tokens(
    query: csr_array, passage: csr_array, token: Callable[[int], str], *, limit: int | None = None
) -> list[TokenMatch]:
    """The tokens behind a lexical score, the largest contribution first, ties by token id.

    Without a limit the contributions sum to the score of the lexical leg (`hit.scores.lexical`), to
    the precision of float32.

    Args:
        query: `(1, vocab)`, the row of `M3Output.lexical` of the question.
        passage: `(1, vocab)`, the row of the passage, as from `store.representations([chunk.id])`.
        token: Makes a token id readable, such as `M3Encoder.token`.
        limit: Most tokens to return; None for all of them.

    Raises:
        InputError: If either is not a single row, or the rows come from different vocabularies.
    """
    if query.shape != passage.shape or query.shape[0] != 1:
        raise InputError(
            f"top_tokens compares one row with one row of the same vocabulary, got {query.shape} and {passage.shape}: "
            "take output[i].lexical from the same encoder for both"
        )
    product = csr_array(query.multiply(passage))
    contributions = product.data.astype(np.float64)
    order = np.lexsort((product.indices, -contributions))[:limit]
    return [TokenMatch(token(int(product.indices[i])), float(contributions[i])) for i in order]


@dataclass(frozen=True, slots=True)
class Explanation:
    """What is behind a hit.

    Attributes:
        hit: With its scores and ranks, and the legs that found it.
        tokens: The tokens it shares with the question, those that gave most to the lexical score first.
        alignment: For each token of the question the token of `hit.chunk.encoded_text` that ColBERT
            scores it by (spans are into that text); None where it was not asked for.
    """

    hit: Hit
    tokens: tuple[TokenMatch, ...]
    alignment: tuple[TokenAlignment, ...] | None = None


def explanations(
    encoder: Encoder, store: Store, query: str, hits: Sequence[Hit], *, limit: int | None, alignment: bool
) -> list[Explanation]:
    """Explain hits, in their order; neither order nor scores change.

    Args:
        encoder: The model; for an alignment one that knows its tokens, such as `M3Encoder`.
        store: Where the hits' chunks are; one removed since is explained by its text.
        query: The question.
        hits: What was found for it.
        limit: Most shared tokens of each hit.
        alignment: Whether to align tokens as ColBERT does, which encodes each hit again.

    Raises:
        ConfigurationError: If the model gives no lexical weights, or for an alignment no token vectors,
            or the encoder does not know its tokens.
    """
    if not hits:
        return []
    remedy = "look at hit.scores.dense"
    require_legs(encoder.info, ["lexical"], what="an explanation by shared tokens", remedy=remedy)
    lexical = encoder.encode_queries([query]).lexical
    passages = lexical_weights(encoder, store, hits)
    align = _alignment if alignment else _not_asked_for
    return [
        Explanation(
            hit,
            tuple(top_tokens(lexical, passage, encoder.token, limit=limit)),
            align(encoder, query, hit.chunk.encoded_text),
        )
        for hit, passage in zip(hits, passages, strict=True)
    ]


def _not_asked_for(_encoder: Encoder, _query: str, _passage: str) -> None:
    return None


def _alignment(encoder: Encoder, query: str, passage: str) -> tuple[TokenAlignment, ...]:
    # Imported here: it loads the tokenizer's package, which a search has no use for.
    from m3rag.encoder.explain import colbert_alignment  # noqa: PLC0415

    if not hasattr(encoder, "tokens"):
        raise ConfigurationError(
            f"the encoder {type(encoder).__name__} cannot tell its tokens: explain with an M3Encoder, or "
            "without alignment=True"
        )
    return tuple(colbert_alignment(cast("TokenEncoder", encoder), query, passage))
