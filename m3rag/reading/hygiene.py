"""Remove characters that people cannot see but a model would read, and fold what only typesetting made.

Tag characters and runs of variation selectors can carry a whole hidden message, zero-width
characters split words so that filters and lexical matching miss them, and bidirectional controls
show text in another order than it is read. Joiners stay where a script is written with them.

Ligatures, Arabic presentation forms and radicals used as ideographs are how a word was set, not how
it is written, and become letters. The rest of NFKC is left to tokenizers: it would turn the 10² of a
quotation into 102.
"""

from __future__ import annotations

import re
import unicodedata

from m3rag.reading.hygiene_edits import Edited, substitute

CONTROLS = "\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f"
# Soft hyphen, Arabic letter mark, left and right marks, embeddings, overrides, word joiner,
# invisible operators, isolates, byte order mark, annotations, non-characters.
FORMATS = "\u00ad\u061c\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ufffe\uffff"
TAGS = "\U000e0000-\U000e007f"
SURROGATES = "\ud800-\udfff"  # alone they cannot be written as UTF-8

# Scripts whose letters change shape by joiners: Arabic to Mandaic, Indic, Tibetan to Myanmar, Khmer, Mongolian...
JOINING = (
    "\u0600-\u0dff\u0f00-\u109f\u1780-\u18af\u1900-\u1aaf\u1b00-\u1c4f\ua800-\ua95f\ua980-\uabff"
    "\ufb50-\ufdff\ufe70-\ufefc\U00010a00-\U00011fff\U0001e900-\U0001e95f"
)
EMOJI = (
    "\u00a9\u00ae\u203c\u2049\u20e3\u2122\u2139\u2194-\u21ff\u2300-\u27bf\u2900-\u2bff\u3030\u303d\u3297\u3299"
    "\U0001f000-\U0001faff"
)
# Scripts that mark the ends of words by a zero-width space: Thai, Lao, Tibetan, Myanmar, Khmer, Tai.
ZERO_WIDTH_SPACED = "\u0e00-\u109f\u1780-\u17ff\u1950-\u1aaf"
IDEOGRAPHS = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
SELECTORS, IDEOGRAPHIC_SELECTORS = "\ufe00-\ufe0f", "\U000e0100-\U000e01ef"

_ALWAYS = re.compile(f"[{CONTROLS}{FORMATS}{TAGS}{SURROGATES}]")
# In one pass over a text without the former, and the same again afterwards: what decides over a character is never
# one that goes itself. A selector belongs to the character before it, which
# is seen: no joiner, blank, filler or other selector.
_ANY_SELECTOR = f"{SELECTORS}{IDEOGRAPHIC_SELECTORS}"
_NO_BASE = f"\\s\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200d\u2800\u3164\uffa0{_ANY_SELECTOR}"
_OUT_OF_PLACE = re.compile(
    f"(?<![{JOINING}])\u200c"
    f"|(?<![{JOINING}{EMOJI}])(?<![^{_NO_BASE}]\ufe0f)\u200d"
    f"|(?<![{JOINING}])\u200d(?![{JOINING}{EMOJI}])"
    f"|(?<![{ZERO_WIDTH_SPACED}])\u200b|\u200b(?![{ZERO_WIDTH_SPACED}])"
    f"|(?<=[{_NO_BASE}])[{_ANY_SELECTOR}]"
    f"|(?<![{IDEOGRAPHS}])[{IDEOGRAPHIC_SELECTORS}]"
)
# What may be found in any honest text: it goes, and nobody need be told. Controls are what is left of
# glyphs without a code, or of a printer's language.
HARMLESS = CONTROLS + SURROGATES + "\u00ad\u061c\u200e\u200f\ufeff\ufffe\uffff"
# Latin, Armenian and Hebrew ligatures, Arabic presentation forms, radicals. The signs among the
# Arabic ones (such as the ligature of a whole blessing) and digraph letters are letters of their own.
TYPESET = (
    "\u2e9f\u2ef3\u2f00-\u2fd5\ufb00-\ufb06\ufb13-\ufb17\ufb1d-\ufb4f"
    "\ufb50-\ufbb1\ufbd3-\ufcf1\ufcf5-\ufd3d\ufd50-\ufdef\ufe80-\ufefc"
)

_TOLD = re.compile(f"[^{HARMLESS}]")
_BROKEN_WORD = re.compile("(?<=[^\\W\\d_])\u00ad[ \\t]*\\r?\\n[ \\t]*(?=[^\\W\\d_])")
_TYPESET = re.compile(f"[{TYPESET}]+")


def clean(text: str) -> tuple[Edited, int]:
    """Remove what cannot be seen, rejoin words broken at a soft hyphen, fold typesetters' forms.

    Args:
        text: Any text, also with lone surrogates.

    Returns:
        The text with its map to the source, and how many characters were removed that an honest
        text would not hold (controls, soft hyphens, marks of direction and byte order do not count).
    """
    told = 0

    def remove(found: re.Match[str]) -> str:
        nonlocal told
        told += bool(_TOLD.match(found.group()))
        return ""

    edited = substitute(text, _BROKEN_WORD, lambda found: "")
    edited = substitute(edited, _ALWAYS, remove)
    edited = substitute(edited, _OUT_OF_PLACE, remove)
    return substitute(edited, _TYPESET, lambda found: unicodedata.normalize("NFKC", found.group())), told


def strip_hidden(text: str) -> str:
    """Remove what cannot be seen; everything else, white space included, stays as it is.

    Args:
        text: Any text, also with lone surrogates.

    Returns:
        The text without control characters (tab and line breaks stay), tags, zero-width and
        bidirectional controls. Zero-width (non-)joiners stay after letters of joining scripts
        (Persian, Hindi, ...) and between emoji, zero-width spaces between letters of scripts
        that separate words by them (Khmer, Thai, ...), one variation selector after a character.
    """
    return _OUT_OF_PLACE.sub("", _ALWAYS.sub("", text))
