"""The title among the properties of an RTF file."""

from __future__ import annotations

from collections.abc import Sequence

from m3rag.reading.rtf_text import TextBuilder
from m3rag.reading.rtf_tokens import Kind, Token


def info_title(group: Sequence[Token], encoding: str) -> str:
    """The text of the title in the properties; empty where there is none.

    Args:
        group: The tokens of the group of properties.
        encoding: Of its bytes.
    """
    builder, depth, skip, fallback = TextBuilder(), 0, 0, 1
    for at, token in enumerate(group):
        if token.kind is Kind.WORD and token.word == "title" and group[at - 1].kind is Kind.OPEN:
            depth = 1
        elif depth:
            depth += (token.kind is Kind.OPEN) - (token.kind is Kind.CLOSE)
            if not depth:
                break
            if token.kind is Kind.BYTES:
                builder.add_bytes(token.data[skip:], (encoding,))
                skip = max(skip - len(token.data), 0)
            elif token.word == "uc":
                fallback = max(token.number or 0, 0)
            elif token.word == "u" and token.number is not None:
                builder.add_unit(token.number % 0x10000)
                skip = fallback
    builder.end_paragraph(0)
    return builder.layout.text
