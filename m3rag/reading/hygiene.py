"""Remove characters that people cannot see but a model would read.

Tag characters and runs of variation selectors can carry a whole hidden message, zero-width
characters split words so that filters and lexical matching miss them, and bidirectional controls
show text in another order than it is read. Joiners stay where a script is written with them.
"""

from __future__ import annotations

import re

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
    "\u00a9\u00ae\u203c\u2049\u20e3\u2122\u2139\u2194-\u21ff\u2300-\u27bf\u2900-\u2bff\u3030\u303d\u3297\u3299\ufe0f"
    "\U0001f000-\U0001faff"
)
# Scripts that mark the ends of words by a zero-width space: Thai, Lao, Tibetan, Myanmar, Khmer, Tai.
ZERO_WIDTH_SPACED = "\u0e00-\u109f\u1780-\u17ff\u1950-\u1aaf"
IDEOGRAPHS = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
SELECTORS, IDEOGRAPHIC_SELECTORS = "\ufe00-\ufe0f", "\U000e0100-\U000e01ef"

_ALWAYS = re.compile(f"[{CONTROLS}{FORMATS}{TAGS}{SURROGATES}]")
_OUT_OF_PLACE = re.compile(
    f"(?<![{JOINING}])\u200c"
    f"|(?<![{JOINING}{EMOJI}])\u200d"
    f"|(?<![{JOINING}])\u200d(?![{JOINING}{EMOJI}])"
    f"|(?<![{ZERO_WIDTH_SPACED}])\u200b|\u200b(?![{ZERO_WIDTH_SPACED}])"
    f"|(?<=[{SELECTORS}{IDEOGRAPHIC_SELECTORS}])[{SELECTORS}{IDEOGRAPHIC_SELECTORS}]"
    f"|(?<![{IDEOGRAPHS}])[{IDEOGRAPHIC_SELECTORS}]"
)


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
