"""Where the tokens of a text stand, by whatever counts them: a tokenizer, or an estimate."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from m3rag.errors import InputError, ModelError

if TYPE_CHECKING:
    import tiktoken

Spans = npt.NDArray[np.int64]
SpansOf = Callable[[str], Spans]
"""See `m3rag.encoder.protocol.Encoder.word_spans`."""

Offsets = Iterable[tuple[int, int]]

# Half of a UTF-16 pair is no character and cannot be tokenised; one for one, so that spans hold.
LONE_SURROGATES = re.compile("[\ud800-\udfff]")

# In order: a word of ASCII letters, digits, letters with few bytes, signs that byte-level vocabularies
# know least well (Chinese, Japanese, Korean, emoji), any other character.
PIECES = re.compile(
    "[A-Za-z]{1,4}|[0-9]{1,3}|[\u00c0-\u024f\u0370-\u052f]{1,2}"
    "|([\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\ufe30-\uffef\U00010000-\U0010ffff])|\\S"
)


def clean(text: str) -> str:
    """The text with its lone surrogates replaced, as long as before."""
    return LONE_SURROGATES.sub("\ufffd", text)


def spans_of(tokenizer: str | Path | Tokenizer | tiktoken.Encoding | None) -> SpansOf:
    """Counts with a tokenizer, or by estimate.

    Args:
        tokenizer: A `tokenizer.json` (or its folder), a tokenizer of either library, or None.

    Raises:
        ModelError: If a file cannot be read as a tokenizer.
        InputError: If it is nothing of all this.
    """
    if tokenizer is None:
        return estimated_spans
    if isinstance(tokenizer, (str, Path)):
        tokenizer = _read(Path(tokenizer).expanduser())
    if isinstance(tokenizer, Tokenizer):
        # A copy: its owner may cut and pad with it, and switch that on and off in other threads.
        backend: Tokenizer = Tokenizer.from_str(tokenizer.to_str())
        backend.no_truncation()
        backend.no_padding()
        return partial(tokenizer_spans, backend)
    if hasattr(tokenizer, "decode_with_offsets"):
        return partial(tiktoken_spans, tokenizer)
    raise InputError(
        f"tokenizer is a {type(tokenizer).__name__}, must be the path of a tokenizer.json, a tokenizers.Tokenizer or "
        "a tiktoken.Encoding"
    )


def _read(path: Path) -> Tokenizer:
    file = path / "tokenizer.json" if path.is_dir() else path
    try:
        tokenizer: Tokenizer = Tokenizer.from_buffer(file.read_bytes())
    except Exception as error:  # the library raises Exception itself
        raise ModelError(f"{file} is no tokenizer.json ({error}): give the file that belongs to the model") from error
    return tokenizer


def tokenizer_spans(tokenizer: Tokenizer, text: str) -> Spans:
    """Counts with a tokenizer of the library `tokenizers` that neither cuts nor pads."""

    def offsets(lines: list[str]) -> Iterable[Offsets]:
        return (encoding.offsets for encoding in tokenizer.encode_batch(lines, add_special_tokens=False))

    return _by_line(text, offsets)


def tiktoken_spans(encoding: tiktoken.Encoding, text: str) -> Spans:
    """Counts with an `Encoding` of the library `tiktoken`."""

    def of_line(line: str) -> Offsets:
        # Bytes of one character that became several tokens all start at it: all but the last are empty.
        starts = encoding.decode_with_offsets(encoding.encode_ordinary(line))[1]
        return zip(starts, [*starts[1:], len(line)], strict=True)

    return _by_line(text, lambda lines: map(of_line, lines))


def estimated_spans(text: str) -> Spans:
    """Counts without a tokenizer, on the safe side.

    A token is up to 4 letters of a word in ASCII, 3 digits, 2 other Latin, Greek or Cyrillic letters,
    or any other single character; a Chinese, Japanese or Korean one, and an emoji, counts as 2. Over
    240 paragraphs of XQuAD in each of 6 languages that is 1.0 to 1.5 times the tokens of OpenAI's
    cl100k_base, and 1.3 to 2.7 times those of XLM-R.
    """

    def of_line(line: str) -> Offsets:
        for match in PIECES.finditer(line):
            yield match.span()
            if match[1]:
                yield match.end(), match.end()

    return _by_line(text, lambda lines: map(of_line, lines))


def _by_line(text: str, offsets_of: Callable[[list[str]], Iterable[Offsets]]) -> Spans:
    """Spans from the offsets of each line: hardly a token crosses one, and a huge string is dear to tokenise."""
    lines = clean(text).splitlines(keepends=True)
    starts = np.cumsum([0, *map(len, lines)])
    rows = [
        np.array(offsets, np.int64).reshape(-1, 2) + start
        for start, offsets in zip(starts, map(list, offsets_of(lines)), strict=False)
    ]
    if not rows:
        return np.zeros((0, 2), np.int64)
    spans = trim(np.concatenate(rows), text)
    # One character may become several tokens: only the first of them counts its span.
    ends = np.maximum.accumulate(np.concatenate([[0], spans[:, 1]]))
    spans[:, 0] = np.maximum(spans[:, 0], ends[:-1])
    spans[:, 1] = np.maximum(spans[:, 1], spans[:, 0])
    return trim(spans, text)  # what is left of a token may begin with a sign that the tokenizer drops


def trim(spans: Spans, text: str) -> Spans:
    """Shrink spans so that they neither start nor end in white space."""
    blank = np.fromiter((c.isspace() for c in text), bool, len(text))
    positions = np.arange(len(text) + 1)
    next_solid = np.minimum.accumulate(np.where(np.append(~blank, True), positions, len(text))[::-1])[::-1]
    past_solid = np.maximum.accumulate(np.concatenate([[0], np.where(blank, 0, positions[1:])]))
    starts, ends = next_solid[spans[:, 0]], past_solid[spans[:, 1]]
    empty = starts >= ends
    return np.stack([np.where(empty, spans[:, 0], starts), np.where(empty, spans[:, 0], ends)], axis=1)


def with_marks(spans: Spans, text: str) -> Spans:
    """Stretch spans over what is joined to their last character and is in no span.

    The tokenizer counts a letter and its marks, which it reads as one character, as the letter alone.
    """
    if text.isascii():
        return spans
    spanned = np.zeros(len(text) + 1, np.int64)
    np.add.at(spanned, spans[:, 0], 1)
    np.add.at(spanned, spans[:, 1], -1)
    marks = np.fromiter(map(_is_joined, text), bool, len(text))
    stop = np.append(~marks | (np.cumsum(spanned)[:-1] > 0), True)
    positions = np.where(stop, np.arange(len(text) + 1), len(text))
    reached = np.minimum.accumulate(positions[::-1])[::-1]
    empty = spans[:, 0] == spans[:, 1]
    return np.stack([spans[:, 0], np.where(empty, spans[:, 1], reached[spans[:, 1]])], axis=1)


def _is_joined(char: str) -> bool:
    """Whether it becomes one with the character before: a mark, or the vowel or end of a Hangul syllable."""
    return unicodedata.category(char).startswith("M") or "\u1160" <= char <= "\u11ff" or char in "\uff9e\uff9f"
