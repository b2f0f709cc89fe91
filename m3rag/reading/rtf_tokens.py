"""RTF's syntax: control words, braces, bytes (Rich Text Format Specification 1.9.1)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple

_TOKEN = re.compile(
    rb"\\([a-zA-Z]{1,32})(-?\d{1,10})?[ ]?"
    rb"|\\'([0-9a-fA-F]{2})"
    rb"|\\([^a-zA-Z])"
    rb"|([{}])"
    rb"|([^\\{}\r\n\0]+)"
    rb"|[\\\r\n\0]",
    re.DOTALL,
)
_SYMBOLS = {b"\n": "par", b"\r": "par", b"\t": "tab"}


class Kind(Enum):
    """What a token is."""

    OPEN = "{"
    CLOSE = "}"
    WORD = "word"
    BYTES = "bytes"


class Token(NamedTuple):
    """A token: a control word or symbol with its number, or bytes in the current code page."""

    kind: Kind
    word: str = ""
    number: int | None = None
    data: bytes = b""


def tokens(data: bytes) -> Iterator[Token]:
    """Cut RTF into tokens; binary data is passed over.

    Args:
        data: The whole file.

    Yields:
        The tokens in order. An escaped byte is a token of its own, since fallbacks of
        Unicode characters are counted in them.
    """
    at = 0
    while (match := _TOKEN.match(data, at)) is not None:
        at = match.end()
        word, number, escaped, symbol, brace, raw = match.groups()
        if word is not None:
            value = int(number) if number is not None else None
            if word == b"bin":
                at += max(value or 0, 0)
            else:
                yield Token(Kind.WORD, word.decode("ascii"), value)
        elif escaped is not None:
            yield Token(Kind.BYTES, data=bytes.fromhex(escaped.decode("ascii")))
        elif raw is not None:
            yield Token(Kind.BYTES, data=raw)
        elif brace is not None:
            yield Token(Kind.OPEN if brace == b"{" else Kind.CLOSE)
        elif symbol in (b"\\", b"{", b"}"):
            yield Token(Kind.BYTES, data=symbol)
        elif symbol is not None:
            yield Token(Kind.WORD, _SYMBOLS.get(symbol, symbol.decode("latin-1")))
