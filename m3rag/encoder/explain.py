"""Why two texts match: the lexical weight of each token, and which tokens ColBERT aligns.

`m3rag.retrieval.top_tokens` explains a stored passage's lexical score; here the texts themselves are
at hand, so that every token is known with its place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from m3rag.encoder.inputs import Role, require_role
from m3rag.encoder.spans import Spans
from m3rag.encoder.tokenizer import Tokenizer
from m3rag.errors import InputError
from m3rag.legs import require_legs
from m3rag.output import M3Output
from m3rag.types import Leg, ModelInfo


class TokenEncoder(Protocol):
    """What explaining asks of an encoder, beyond `Encoder`; every `M3Encoder` has it."""

    @property
    def info(self) -> ModelInfo:
        """The model's name and dimensions."""

    @property
    def tokenizer(self) -> Tokenizer:
        """Knows the tokens that never count."""

    def encode_queries(self, texts: list[str]) -> M3Output:
        """Encode questions."""

    def encode_documents(self, texts: list[str]) -> M3Output:
        """Encode passages."""

    def token(self, token_id: int) -> str:
        """The readable token of an id."""

    def tokens(self, text: str, *, role: Role) -> tuple[npt.NDArray[np.int64], Spans]:
        """Ids `(tokens,)` and spans `(tokens, 2)` of the tokens that have a ColBERT vector."""

    def token_weights(self, text: str, *, role: Role) -> npt.NDArray[np.float32]:
        """The lexical weight of each of them, `(tokens,)`."""


@dataclass(frozen=True, slots=True, repr=False)
class TokenWeight:
    """A token where it stands in a text, and the lexical weight it has there.

    Attributes:
        token: As in `M3Output.lexical`: with the `▁` that marks the start of a word.
        start: Its first character; it is `text[start:end]`, but for normalisation.
        end: One past its last character.
        weight: >= 0.
    """

    token: str
    start: int
    end: int
    weight: float

    def __str__(self) -> str:
        return f"{_placed(self.token, self.start, self.end)} {self.weight:.4f}"

    def __repr__(self) -> str:
        return f"<TokenWeight {self}>"


@dataclass(frozen=True, slots=True, repr=False)
class TokenAlignment:
    """A token of the query, and the token of the passage that is most like it.

    Attributes:
        query_token: Readable, as in `TokenWeight`.
        query_start: Its first character in the query.
        query_end: One past its last character.
        passage_token: The token of the passage with the largest similarity, the first of equals.
        passage_start: Its first character in the passage.
        passage_end: One past its last character.
        similarity: Cosine of their vectors, [-1, 1].
        query_special: Whether the query's token is its closing special token, which has an empty span.
        passage_special: Likewise for the passage's token.
    """

    query_token: str
    query_start: int
    query_end: int
    passage_token: str
    passage_start: int
    passage_end: int
    similarity: float
    query_special: bool = False
    passage_special: bool = False

    def __str__(self) -> str:
        query = _placed(self.query_token, self.query_start, self.query_end)
        passage = _placed(self.passage_token, self.passage_start, self.passage_end)
        return f"{query} -> {passage} {self.similarity:.4f}"

    def __repr__(self) -> str:
        return f"<TokenAlignment {self}>"


def token_weights(encoder: TokenEncoder, text: str, *, role: Role = "document") -> list[TokenWeight]:
    """The lexical weight of each token of a text, in the order of the text.

    A token that stands in the text several times has a weight at each place; the largest is its entry
    in `M3Output.lexical`. Tokens that never count (special, prefix and unknown ones) are left out.

    Args:
        encoder: An `M3Encoder`.
        text: A question or passage; beyond the encoder's `max_length` tokens it is cut.
        role: `query` or `document`: which prefix the text has, for models that know prefixes.

    Raises:
        InputError: If the text is no string, or the role is unknown.
        ConfigurationError: If the model has no lexical weights.

    Example:
        >>> from m3rag.encoder import M3Encoder
        >>> weights = token_weights(M3Encoder("mini"), "Ducks swim.")
        >>> [(w.token, w.start, w.end) for w in weights]
        [('▁Du', 0, 2), ('cks', 2, 5), ('▁swim', 6, 10), ('.', 10, 11)]
        >>> max(weights, key=lambda w: w.weight).token
        '▁swim'
    """
    _require(encoder, "lexical", what="token_weights", text=text)
    require_role(role)
    ids, tokens = _tokens(encoder, text, role)
    weights = encoder.token_weights(text, role=role).tolist()
    counted = np.flatnonzero(~np.isin(ids, encoder.tokenizer.unused_ids)).tolist()
    return [TokenWeight(*tokens[i], weights[i]) for i in counted]


def colbert_alignment(encoder: TokenEncoder, query: str, passage: str) -> list[TokenAlignment]:
    """For each token of the query the token of the passage that it is scored by, in the query's order.

    The mean of the similarities is the ColBERT score, `m3rag.scoring.colbert_scores`; so the closing
    special token of the query is among them.

    Args:
        encoder: An `M3Encoder`.
        query: A question; beyond the encoder's `max_length` tokens it is cut.
        passage: A passage; likewise.

    Raises:
        InputError: If a text is no string.
        ConfigurationError: If the model has no token vectors.

    Example:
        >>> from m3rag.encoder import M3Encoder
        >>> aligned = colbert_alignment(M3Encoder("mini"), "Was essen Enten?", "Ducks eat pond weed.")
        >>> [a.passage_token for a in aligned if a.query_token == "▁essen"]
        ['▁eat']
    """
    _require(encoder, "colbert", what="colbert_alignment", text=query)
    _require(encoder, "colbert", what="colbert_alignment", text=passage)
    query_vectors = encoder.encode_queries([query]).colbert.astype(np.float32)
    passage_vectors = encoder.encode_documents([passage]).colbert.astype(np.float32)
    similarities = query_vectors @ passage_vectors.T  # (query tokens, passage tokens)
    best = similarities.argmax(axis=1)  # (query tokens,)
    _, query_tokens = _tokens(encoder, query, "query")
    _, passage_tokens = _tokens(encoder, passage, "document")
    found = []
    for q, p in enumerate(best.tolist()):
        token, start, end = passage_tokens[p]
        closing = q == len(query_tokens) - 1, p == len(passage_tokens) - 1
        found.append(TokenAlignment(*query_tokens[q], token, start, end, float(similarities[q, p]), *closing))
    return found


def _tokens(encoder: TokenEncoder, text: str, role: Role) -> tuple[npt.NDArray[np.int64], list[tuple[str, int, int]]]:
    """The ids of the tokens that have a ColBERT vector, and each readable with its span."""
    ids, spans = encoder.tokens(text, role=role)
    starts, ends = spans.T.tolist()
    return ids, [(encoder.token(i), start, end) for i, start, end in zip(ids.tolist(), starts, ends, strict=True)]


def _require(encoder: TokenEncoder, leg: Leg, *, what: str, text: str) -> None:
    require_legs(encoder.info, [leg], what=what, remedy="leave the explanation out")
    if not isinstance(text, str):
        raise InputError(f"{what} explains single texts, got a {type(text).__name__}: give a string")


def _placed(token: str, start: int, end: int) -> str:
    return f"{token} [{start}:{end}]"
