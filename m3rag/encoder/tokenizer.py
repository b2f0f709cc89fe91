"""The checkpoint's tokenizer: ids for the model, character spans for chunks and highlights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer as Backend

from m3rag.encoder.spans import Spans, clean, tokenizer_spans, trim, with_marks
from m3rag.errors import ModelError

Ids = npt.NDArray[np.int64]

PADDING, UNKNOWN = ("<pad>", "[PAD]"), ("<unk>", "[UNK]")


SPECIALS = 2
"""Special tokens around a text."""


class Tokenized(NamedTuple):
    """Token ids of each text, specials included, and how many of the texts had to be cut."""

    ids: list[Ids]
    cut: int


class Tokenizer:
    """A `tokenizer.json` with one special token before and one after each text.

    Attributes:
        unused_ids: The ids that never carry a lexical weight: both specials, padding, unknown.

    Raises:
        ModelError: If the file cannot be read, or is not a tokenizer of M3's kind.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._backend = Backend.from_file(str(path))
        except Exception as error:  # the library raises Exception itself
            raise ModelError(f"{path} is no tokenizer.json ({error}): fetch or save it again") from error
        self._backend.no_padding()
        self._backend.no_truncation()
        specials = self._backend.encode("").ids
        if len(specials) != SPECIALS:
            raise ModelError(f"{path} puts {len(specials)} special tokens around a text; an M3 tokenizer puts 2")
        self._first, self._last = specials
        padding, unknown = self._id_of(PADDING, path), self._id_of(UNKNOWN, path)
        self.unused_ids = np.unique([self._first, self._last, padding, unknown])

    def _id_of(self, names: Sequence[str], path: Path) -> int:
        for name in names:
            found: int | None = self._backend.token_to_id(name)
            if found is not None:
                return found
        raise ModelError(f"{path} has none of the tokens {', '.join(names)}")

    @property
    def vocab_size(self) -> int:
        """Number of tokens, added ones included."""
        return int(self._backend.get_vocab_size(with_added_tokens=True))

    def token(self, token_id: int) -> str:
        """The readable token, its leading `▁` or `##` kept, since 'B' and '▁B' are two tokens."""
        return str(self._backend.id_to_token(token_id) or f"<{token_id}>")

    def prefix_length(self, prefix: str) -> int:
        """How many tokens a prefix ending in a blank becomes, whatever follows it."""
        return len(self._backend.encode(prefix, add_special_tokens=False).ids) if prefix else 0

    def encode(self, texts: Sequence[str], *, prefix: str = "", max_length: int) -> Tokenized:
        """Token ids of each text with its specials, cut to `max_length` tokens."""
        encodings = self._backend.encode_batch_fast([prefix + clean(t) for t in texts], add_special_tokens=False)
        room = max_length - SPECIALS
        contents = [e.ids for e in encodings]
        ids = [np.array([self._first, *content[:room], self._last], np.int64) for content in contents]
        return Tokenized(ids, sum(len(content) > room for content in contents))

    def token_spans(self, text: str, *, prefix: str = "", max_length: int) -> Spans:
        """Character spans of the tokens of `encode([text])`, without the first special and prefix.

        Returns:
            `(tokens, 2)` int64; the last row is the closing special token, an empty span.
        """
        encoding = self._backend.encode(prefix + clean(text), add_special_tokens=False)
        offsets = np.array(encoding.offsets, np.int64).reshape(-1, 2)
        spans = with_marks(trim(offsets, prefix + text), prefix + text) - len(prefix)
        kept = spans[self.prefix_length(prefix) : max_length - SPECIALS]
        return np.concatenate([np.maximum(kept, 0), np.zeros((1, 2), np.int64)])

    def word_spans(self, text: str) -> Spans:
        """Character spans of all tokens of a text of any length: `(tokens, 2)` int64.

        A token without characters of its own (the second of two that one character became) has an
        empty span: it still takes room in the model.
        """
        return tokenizer_spans(self._backend, text)
