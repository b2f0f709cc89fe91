"""Hyphens at a line's end: of a word that was broken, of a compound, or of a word that a conjunction completes."""

from __future__ import annotations

import re
from collections.abc import Iterable

HYPHEN = "\ufffe"
"""pdfium's sign for a hyphen at a line's end."""

LONGEST = 60  # characters of a word that are looked at, on either side
# No word is broken so that one of these is what is left of it.
CONJUNCTIONS_BY_LANGUAGE = {
    "en": "and",
    "de": "und oder bzw sowie",
    "es, pt, it, pl, cs": "a e i o u y oraz nebo alebo",
    "sv, da, no": "och og eller",
    "hu, el": "és vagy ή",
    "ru, uk": "и й і или либо або",
}
CONJUNCTIONS = frozenset(word for words in CONJUNCTIONS_BY_LANGUAGE.values() for word in words.split())
# These end words too ("momen-to", "Frau-en"): they are conjunctions in a file that has the word beside them.
CONJUNCTIONS_OF_A_LANGUAGE = {"or": "the", "to": "the", "et": "les", "ou": "les", "en": "het", "of": "het", "ed": "che"}
# Of "to" that is not enough, as words end so whose first part is one too.
_NEVER_BEFORE_TO = frozenset({"in", "on", "un"})
# They begin compounds and hardly ever a word.
FIRST_PARTS = frozenset({"self", "well"})

_HYPHEN = re.compile(rf"{HYPHEN}\s*")
_LETTERS = r"[^\W\d_]+"
_WORD = re.compile(rf"{_LETTERS}(?:-{_LETTERS})*")
_WORD_BEFORE = re.compile(rf"{_LETTERS}(?:-{_LETTERS})*$")
_LETTER_BEFORE = re.compile(r"(?:\A|[\s(\[-])[^\W\d_]\Z")  # not the d'é of d'étude, nor the o of und/oder
_TO_A_COMPOUND = re.compile(r"to\s+[^\W\d_]{1,20}(?:-|fold)", re.IGNORECASE)
_UNBROKEN = re.compile(rf"{_LETTERS}(?:(?:-|{HYPHEN}\s*){_LETTERS})*")


class Hyphens:
    """What a file's other words tell of the hyphens at its lines' ends."""

    def __init__(self, texts: Iterable[str]) -> None:
        """Look for the words that have been broken elsewhere in the file.

        Args:
            texts: Of its pages, as pdfium gives them.
        """
        pages = list(texts)
        asked = set(CONJUNCTIONS_OF_A_LANGUAGE.values())
        for text in pages:
            for found in _HYPHEN.finditer(text):
                before, after = _around(text, *found.span())
                asked |= {before, before + after, f"{before}-{after}"}
        # Only the words asked for are kept: a file may have millions.
        words = (found[0].casefold() for text in pages for found in _UNBROKEN.finditer(text))
        self._known = {word for word in words if word in asked}

    def rejoined(self, found: re.Match[str]) -> str:
        """What takes the place of a hyphen, with the blanks and the break behind it.

        Nothing in "unter-nehmen" and what the file writes without a hyphen elsewhere, and never with it; the
        hyphen in "Schwarz-Weiss", "1-2", "e-mail", "self-made" and what the file writes with it elsewhere, and
        never without; the hyphen and a blank in "Vor- und Nachteile".
        """
        text = found.string
        before, after = _around(text, found.start(), found.end())
        if self._is_known(f"{before}-{after}", but_not=before + after):
            return "-"
        ahead = text[max(found.start() - 2, 0) : found.start()]
        if not (before and self._is_known(before + after, but_not=f"{before}-{after}")):
            if self._completes(before, after, text, found.end()):
                return "- "
            if before.rpartition("-")[2] in FIRST_PARTS or _LETTER_BEFORE.match(ahead):
                return "-"
        left, right = ahead[-1:], text[found.end() : found.end() + 1]
        word = left.isalpha() and right.isalpha() and (right.islower() or left.isupper() or not right.isupper())
        return "" if word else "-"

    def _completes(self, before: str, after: str, text: str, at: int) -> bool:
        """Whether the word behind a hyphen, which begins at `at`, is a conjunction."""
        if after in CONJUNCTIONS:
            return True
        if not self._is_known(CONJUNCTIONS_OF_A_LANGUAGE.get(after, ""), but_not=before + after):
            return False
        if after != "to":
            return True
        return before not in _NEVER_BEFORE_TO and (before in self._known or bool(_TO_A_COMPOUND.match(text, at)))

    def _is_known(self, word: str, *, but_not: str) -> bool:
        return word in self._known and but_not not in self._known


def _around(text: str, start: int, end: int) -> tuple[str, str]:
    """The words before and behind a hyphen, in small letters."""
    before = _WORD_BEFORE.search(text[max(start - LONGEST, 0) : start])
    after = _WORD.match(text, end, end + LONGEST)
    return before[0].casefold() if before else "", after[0].casefold() if after else ""
