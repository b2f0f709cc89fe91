"""A question and a passage as one sequence of tokens, as cross-encoders are trained on them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tokenizers import Tokenizer as Backend

from m3rag.encoder.inputs import require_whole
from m3rag.encoder.spans import clean
from m3rag.encoder.tokenizer import Ids
from m3rag.errors import ConfigurationError, InputError, ModelError

TextPair = tuple[str, str]
"""A question and a passage."""

DEFAULT_LENGTH = 512
"""Most tokens of a pair, as FlagEmbedding's."""


class Pair(NamedTuple):
    """The tokens of a pair with its specials: ids, and to which of the two each belongs, `(tokens,)` int64 both."""

    ids: Ids
    types: Ids


class TokenizedPairs(NamedTuple):
    """The tokens of each pair, and how many of the pairs had to be cut."""

    pairs: list[Pair]
    cut: int


def require_pairs(pairs: Sequence[TextPair]) -> None:
    """Refuse what is no list of (question, passage).

    Raises:
        InputError: It names the first pair that is none, or the one pair given for a list.
    """
    if not (hasattr(pairs, "__len__") and hasattr(pairs, "__getitem__")) or isinstance(pairs, Mapping):
        raise InputError(
            f"pairs must be a list of (question, passage), got a {type(pairs).__name__}; make it one with list(...)"
        )
    if isinstance(pairs, str) or (len(pairs) == 2 and all(isinstance(text, str) for text in pairs)):
        raise InputError("pairs must be a list of (question, passage), got texts: put the one pair in a list")
    for i, pair in enumerate(pairs):
        if (
            not isinstance(pair, tuple | list | np.ndarray)
            or len(pair) != 2
            or not all(isinstance(text, str) for text in pair)
        ):
            raise InputError(f"pair {i} is {str(pair)[:80]!r}, must be two strings: a question and a passage")


def windows(pairs: Sequence[TextPair], *, characters: int) -> Iterator[tuple[int, Sequence[TextPair]]]:
    """The pairs in stretches of about so many characters, each with the number of its first pair."""
    start = size = 0
    for end, (query, passage) in enumerate(pairs, 1):
        size += len(query) + len(passage)
        if size >= characters or end == len(pairs):
            yield start, pairs[start:end]
            start, size = end, 0


class PairTokenizer:
    """A `tokenizer.json` with a template for pairs.

    Attributes:
        specials: How many special tokens a pair has.

    Raises:
        ModelError: If the file cannot be read, or puts nothing between question and passage.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._backend = Backend.from_buffer(path.read_bytes())
        except Exception as error:  # the library raises Exception itself
            raise ModelError(f"{path} is no tokenizer.json ({error}): fetch or save it again") from error
        self._backend.no_padding()
        self._backend.no_truncation()
        # What the template puts around two texts shows on any two.
        sample = self._backend.encode("a", "b")
        owners = sample.sequence_ids
        first, second = ([i for i, owner in enumerate(owners) if owner == text] for text in (0, 1))
        if not first or not second or first[-1] + 1 >= second[0]:
            raise ModelError(
                f"{path} puts no special token between question and passage, so it is not a cross-encoder's: "
                "give a sequence-classification checkpoint such as BAAI/bge-reranker-v2-m3"
            )
        parts = slice(0, first[0]), slice(first[-1] + 1, second[0]), slice(second[-1] + 1, None)
        self._before, self._between, self._after = (sample.ids[part] for part in parts)
        self._types = [sample.type_ids[part] for part in parts]
        self._text_types = sample.type_ids[first[0]], sample.type_ids[second[0]]
        self.specials = len(self._before) + len(self._between) + len(self._after)

    def token(self, token_id: int) -> str:
        """The readable token of an id."""
        return str(self._backend.id_to_token(token_id))

    def encode(self, pairs: Sequence[TextPair], *, query_max_length: int, max_length: int) -> TokenizedPairs:
        """Token ids of each pair, cut as FlagEmbedding's reranker cuts.

        Args:
            pairs: Questions and passages; either may be empty.
            query_max_length: Most tokens of a question, without specials.
            max_length: Most tokens of a pair, specials included: the passage gets the room that the
                question leaves.
        """
        # Most calls bring one question with many passages.
        queries = list(dict.fromkeys(query for query, _ in pairs))
        contents = dict(zip(queries, self._contents(queries), strict=True))
        found, cut = [], 0
        for (query, _), passage_ids in zip(pairs, self._contents([passage for _, passage in pairs]), strict=True):
            query_ids = contents[query][:query_max_length]
            room = max_length - self.specials - len(query_ids)
            cut += len(contents[query]) > query_max_length or len(passage_ids) > room
            found.append(self._pair(query_ids, passage_ids[:room]))
        return TokenizedPairs(found, cut)

    def _contents(self, texts: Sequence[str]) -> list[list[int]]:
        encodings = self._backend.encode_batch_fast([clean(text) for text in texts], add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def _pair(self, query: list[int], passage: list[int]) -> Pair:
        before, between, after = self._types
        of_query, of_passage = self._text_types
        ids = [*self._before, *query, *self._between, *passage, *self._after]
        types = [*before, *[of_query] * len(query), *between, *[of_passage] * len(passage), *after]
        return Pair(np.array(ids, np.int64), np.array(types, np.int64))

    def lengths(self, max_length: int | None, query_max_length: int | None, *, limit: int) -> tuple[int, int]:
        """What `encode` is given for a model.

        Args:
            max_length: By default 512, or the model's limit where that is lower.
            query_max_length: By default three quarters of `max_length`.
            limit: Most tokens of a pair that the model takes.

        Returns:
            `max_length` and `query_max_length`.

        Raises:
            ConfigurationError: If the model does not take as many, or they leave no room for a passage.
        """
        length = min(DEFAULT_LENGTH, limit) if max_length is None else max_length
        require_whole("max_length", length)
        of_query = length * 3 // 4 if query_max_length is None else query_max_length
        require_whole("query_max_length", of_query)
        if length > limit:
            raise ConfigurationError(f"max_length {length} is out of range for this model: choose at most {limit}")
        if of_query < 1 or of_query + self.specials >= length:
            raise ConfigurationError(
                f"max_length {length} and query_max_length {of_query} leave no room for a passage beside "
                f"{self.specials} special tokens: raise max_length, or lower query_max_length"
            )
        return length, of_query
