"""Pages with right-to-left letters by pypdf: pdfium puts the parts of ligatures and foreign words out of order."""

from __future__ import annotations

import logging
import re
import unicodedata
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

import pypdfium2
import pypdfium2.raw as pdfium
from pypdf import PdfReader

_LETTERS = "\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\U00010800-\U00010fff\U0001e800-\U0001efff"
_RIGHT_TO_LEFT = re.compile(f"[{_LETTERS}]")
_RUN = re.compile(rf"[{_LETTERS}]+|[^\W{_LETTERS}]+")  # glued as they may be: a number is no part of the word beside it


def is_right_to_left(text: str) -> bool:
    """Whether a text has a letter of a right-to-left script."""
    return _RIGHT_TO_LEFT.search(text) is not None


def in_reading_order(second: str, first: str) -> str:
    """Lines of pypdf's reading in the order of pdfium's, where the file draws them from the left.

    Browsers do; pypdf then leaves each run of words where it is drawn, so that a line with a number in it
    begins with its end. pdfium knows the order of the words, pypdf that of their letters.

    Args:
        second: A page as pypdf reads it.
        first: The same page as pdfium reads it.
    """
    lines = {_key(line): line for line in first.splitlines()}
    return "\n".join(_in_order(line, lines.get(_key(line), "")) for line in second.split("\n"))


def _in_order(line: str, first: str) -> str:
    runs: list[str] = _RUN.findall(line)
    keys, wanted = [_run_key(run) for run in runs], [_run_key(run) for run in _RUN.findall(first)]
    if sorted(keys) != sorted(wanted) or not keys or wanted.index(keys[0]) <= wanted.index(keys[-1]):
        return line
    left: dict[str, deque[str]] = defaultdict(deque)
    for key, run in zip(keys, runs, strict=True):
        left[key].append(run)
    return _RUN.sub(lambda found: left[_run_key(found[0])].popleft(), first)


def _run_key(run: str) -> str:
    """A run by its letters where it is written from the right, else as it stands: 12 is not 21."""
    return _key(run) if is_right_to_left(run) else run


def _key(text: str) -> str:
    """The letters of a text, whatever their order and form."""
    return "".join(sorted(filter(str.isalnum, unicodedata.normalize("NFKC", text))))


class RightToLeft:
    """A second reading of single pages; the file is opened when the first of them is asked for."""

    def __init__(self, data: bytes, document: pypdfium2.PdfDocument, *, changed: bool) -> None:
        """Remember the file.

        Args:
            data: The file's bytes.
            document: The same file, open.
            changed: Whether pypdf needs a copy of the open file: decrypted, or with what is typed drawn into it.
        """
        self._data, self._document, self._changed = data, document, changed
        self._reader: PdfReader | None = None

    def text(self, index: int) -> str:
        """The text of a page, from 0.

        Raises:
            Exception: Whatever pypdf raises on a page it does not understand.
        """
        with _quiet():
            if self._reader is None:
                self._reader = PdfReader(BytesIO(self._copy() if self._changed else self._data))
            return str(self._reader.pages[index].extract_text())

    def _copy(self) -> bytes:
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
