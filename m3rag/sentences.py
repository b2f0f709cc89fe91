"""Sentences of a text in any language, by rules: no model, no download, exact spans."""

from __future__ import annotations

import re

Span = tuple[int, int]

UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
"""A letter of a script that sets no blanks between words: Thai, Lao, Burmese, Khmer, Japanese, Chinese."""

# Unicode's Sentence_Terminal characters that end a sentence whatever follows them.
STRONG = "。！？｡．।॥۔؟។៕၊။።፧፨։‼⁇⁈⁉"
# The question mark of Greek looks like a semicolon, or is one.
GREEK_QUESTION = "(?<=[\u0370-\u03ff\u1f00-\u1fff])[;\u037e]"
# These also stand inside sentences (abbreviations, decimals, quoted questions): context decides.
WEAK = ".!?…‥"
CLOSERS = "\"'”’»›)]}」』】〉》〕）］｝｣"

# “ and « close a quotation in German and open one elsewhere: closing only where a blank follows.
# French sets » off by a blank.
# A reference such as [12] right behind the stop belongs to the sentence it supports.
REFERENCES = r"(?:\[\d{1,3}\])*"
END = re.compile(
    rf"(?:[{re.escape(STRONG + WEAK)}]|{GREEK_QUESTION})+{REFERENCES}[{re.escape(CLOSERS)}]*"
    rf"(?:(?:[“«]|[ \u00a0\u202f]»)(?=\s|$))?{REFERENCES}"
)
BLOCK = re.compile(
    r"(?:\n[^\S\n]*(?:\n|(?=(?:[-*•‣·▪–+|>]|\d{1,3}[.)]|\#{1,6})[ \t]))|[\f\u2029])\s*"  # before a block
    r"|(?:(?<=\n)|\A)(?:\#{1,6}[ \t]|\|)[^\n]*(?P<line>\n)\s*"  # behind a Markdown heading or table row
)
# Thai, Lao and Khmer put blanks between clauses rather than words: the nearest thing to a stop.
SPACED = "\u0e00-\u0eff\u1780-\u17ff"
CLAUSE_END = re.compile(rf"(?<=[{SPACED}])\s+(?=[{SPACED}])")
SHORTEST_CLAUSE = 24

NOT_SPACE = re.compile(r"\S")
# What the laws below look at behind a stop; a bound keeps a text of one block linear.
AHEAD = 40

WORD_BEFORE = re.compile(r"[^\s()\[\]\"'“„«‘]*$")
DOTTED = re.compile(r"(?:[^\W\d_]{1,2}\.)+[^\W\d_]{1,2}")
# The letters of z. B., u. a., v. Chr. and т. е. stand apart.
LETTER_BEHIND = re.compile(r"(?:[^\W\d_]|Chr)\.")
LETTER_AHEAD = re.compile(r"(?:^|[\s(])[^\W\d_]\.\s$")
ABBREVIATIONS_BY_LANGUAGE = {
    "en": "dr mr mrs ms prof st jr sr gen col capt lt sgt rev hon pres gov sen rep fig figs eq eqs sec ch vol no nos "
    "pp ed eds cf vs viz approx al dept est pt pts",
    "de": "nr bzw bspw vgl abs hr fr frl dipl ing ca evtl ggf inkl sog str tel abb aufl hrsg bd kap",
    "fr, es, pt, it": "mme mlle mgr av sra srta dra ud uds pág núm art ej sig sigg dott avv ee",
    "nl, pl": "bijv dhr mevr np tzn ul",
    "ru": "ул им стр рис см гг тыс млн руб кв корп гл д с п т ч",
    "of several": "p n c d v t",
}
ABBREVIATIONS = frozenset(word for words in ABBREVIATIONS_BY_LANGUAGE.values() for word in words.split())
ONLY_BEFORE_NUMBERS = frozenset(
    {"no", "nos", "art", "см", "ed", "ch", "str", "est", "abs", "tel", "pt", "pts", "кв", "гл", *"pncdvt", *"дсптч"}
)
QUANTITY = re.compile(r"\d\s*(?:t|pts?|т)$")  # "12 pt." and "3 t." end with a unit
GERMAN_ARTICLE = re.compile(r"(?:^|[\s(])(?:de[rmns]|die|das|im|vom|zu[mr]|beim)\s+$", re.IGNORECASE)
GERMAN_ORDINAL = re.compile(
    r"\d{1,2}\.\s+(?:Januar|Februar|März|April|Mai|Juni|Juli|August|September|Oktober|November|Dezember|Jahrhundert)"
)


def sentence_spans(text: str) -> list[Span]:
    """Split a text into sentences.

    Args:
        text: Any text, Markdown and hard-wrapped lines included. A single line break inside a
            paragraph ends nothing; blank lines, headings, list items and table rows do.

    Returns:
        Half-open character spans, in order, without overlap, trimmed of white space. Together they
        hold every character of the text that is not white space.
    """
    spans: list[Span] = []
    for start, end in _pieces(text, 0, len(text), _block_cuts(text)):
        for first, last in _pieces(text, start, end, _stop_cuts(text, start, end)):
            spans += _pieces(text, first, last, _clause_cuts(text, first, last))
    return spans


def _pieces(text: str, start: int, end: int, cuts: list[int]) -> list[Span]:
    """The trimmed, non-empty spans between cuts."""
    pieces = []
    for a, b in zip([start, *cuts], [*cuts, end], strict=True):
        piece = text[a:b]
        first = a + len(piece) - len(piece.lstrip())
        last = a + len(piece.rstrip())
        if first < last:
            pieces.append((first, last))
    return pieces


def _block_cuts(text: str) -> list[int]:
    return [m.start("line") if m["line"] else m.end() for m in BLOCK.finditer(text)]


def _stop_cuts(text: str, start: int, end: int) -> list[int]:
    return [m.end() for m in END.finditer(text, start, end) if m.end() < end and _ends_sentence(text, m, start, end)]


def _ends_sentence(text: str, stop: re.Match[str], start: int, end: int) -> bool:
    following = text[stop.end()]
    marks = stop[0].rstrip(CLOSERS + "“«")
    if "．" in marks and following.isdigit():  # a full-width decimal
        return False
    if any(mark in STRONG for mark in marks):
        return True
    if not following.isspace():
        return False
    found = NOT_SPACE.search(text, stop.end(), end)
    rest = text[found.start() : min(found.start() + AHEAD, end)] if found else ""
    if rest[:1].islower():
        return False
    return stop[0] != "." or not _is_abbreviation(text, stop, start, rest)


def _is_abbreviation(text: str, stop: re.Match[str], start: int, rest: str) -> bool:
    """Whether the single full stop belongs to the word before it."""
    # No abbreviation is longer than this; a bound keeps a text without blanks linear.
    before = text[max(start, stop.start() - 24) : stop.start()]
    found = WORD_BEFORE.search(before)
    word = found[0] if found else ""
    if DOTTED.fullmatch(word):
        return True
    word = word.rpartition(".-")[2]  # J.-P., Dr.-Ing.
    if len(word) == 1 and word.isalpha():  # an initial, or a letter of several
        if word in ONLY_BEFORE_NUMBERS and rest[:1].isdigit():
            return not QUANTITY.search(before)
        return word.isupper() or bool(LETTER_BEHIND.match(rest) or LETTER_AHEAD.search(before[:-1]))
    if word.isdigit():
        return _is_enumerator(before, word) or _is_german_ordinal(before, word, rest)
    folded = word.casefold()
    if folded not in ONLY_BEFORE_NUMBERS:
        return folded in ABBREVIATIONS
    return rest[:1].isdigit() and not QUANTITY.search(before)


def _is_enumerator(before: str, number: str) -> bool:
    """Whether a number opens its sentence, as in `2. Second item`, rather than ends one."""
    ahead = before.removesuffix(number).strip("#>-* \t\n")
    if not ahead or len(number) > 3:
        return not ahead
    found = WORD_BEFORE.search(ahead[:-1])
    word = found[0] if found else ""
    # A capital may end its sentence, as in "plan B." and "Smith J.".
    is_short = word.islower() if len(word) == 1 else word.casefold() in ABBREVIATIONS
    return ahead[-1] in STRONG + WEAK and not is_short


def _is_german_ordinal(before: str, number: str, rest: str) -> bool:
    """Whether a number is a day or a century, or an article stands before it, as in `im 2. Weltkrieg`."""
    if GERMAN_ORDINAL.match(f"{number}. {rest[:12]}"):
        return True
    return len(number) <= 2 and GERMAN_ARTICLE.search(before.removesuffix(number)) is not None


def _clause_cuts(text: str, start: int, end: int) -> list[int]:
    cuts: list[int] = []
    last = start
    for match in CLAUSE_END.finditer(text, start, end):
        if match.start() - last >= SHORTEST_CLAUSE and end - match.end() >= SHORTEST_CLAUSE:
            cuts.append(match.end())
            last = match.end()
    return cuts
