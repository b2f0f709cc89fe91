"""Pages with right-to-left letters by pypdf: pdfium puts the parts of ligatures and foreign words out of order."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

import pypdfium2
import pypdfium2.raw as pdfium
from pypdf import PdfReader

_RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\U00010800-\U00010fff\U0001e800-\U0001efff]")


def is_right_to_left(text: str) -> bool:
    """Whether a text has a letter of a right-to-left script."""
    return _RIGHT_TO_LEFT.search(text) is not None


class RightToLeft:
    """A second reading of single pages; the file is opened when the first of them is asked for."""

    def __init__(self, data: bytes, document: pypdfium2.PdfDocument, *, encrypted: bool) -> None:
        """Remember the file.

        Args:
            data: The file's bytes.
            document: The same file, open.
            encrypted: Whether pypdf needs a decrypted copy of it.
        """
        self._data, self._document, self._encrypted = data, document, encrypted
        self._reader: PdfReader | None = None

    def text(self, index: int) -> str:
        """The text of a page, from 0.

        Raises:
            Exception: Whatever pypdf raises on a page it does not understand.
        """
        with _quiet():
            if self._reader is None:
                self._reader = PdfReader(BytesIO(self._decrypted() if self._encrypted else self._data))
            return str(self._reader.pages[index].extract_text())

    def _decrypted(self) -> bytes:
        # pypdf would need a cryptography library for AES; pdfium has one.
        copy = BytesIO()
        self._document.save(copy, flags=pdfium.FPDF_REMOVE_SECURITY)
        return copy.getvalue()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep pypdf from logging each oddity of a file; what matters to people is in the document's warnings."""
    logger = logging.getLogger("pypdf")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
