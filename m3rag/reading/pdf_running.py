"""Running headers, footers and page numbers: what stands at the same place on page after page."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

MIN_PAGES = 4
MARGIN = 0.15  # of the page's height, at the top and at the bottom
MOST_LINES = 3  # in each margin
TOLERANCE = 0.01  # of the page's height, for the same place
FEW_LETTERS = 20  # "Purchase order number 7" counts too and is no running head
FEW_WORDS = 2  # of a foot, its number included
MOST_DIGITS = 7  # no page has such a number
DIGITS_TOLD = 18  # the last ones of a number tell it from another
BESIDE = 60  # characters that are looked at before and behind a number
MOST_FIGURES = 30  # a row of a table has more
PAGE_WORDS_BY_LANGUAGE = {
    "en, de, nl": "page pages pg p pp of seite seiten s von blatt pagina blz van",
    "fr, es, pt, it, ro": "sur de página páginas pág folha hoja pag foglio di da din",
    "da, sv, no, fi": "side sida sidan sid av af sivu",
    "pl, cs, hr, hu, tr": "strona str stránka strana stranica od oldal sayfa",
    "ru, uk, el": "страница страницы стр с из от сторінка стор з σελίδα σελ από",
    "he, ar, fa": "עמוד דף מתוך صفحة صفحه من از",
    "vi, id, ko": "trang halaman 쪽 페이지 면",
}
PAGE_WORDS = frozenset(word for words in PAGE_WORDS_BY_LANGUAGE.values() for word in words.split())

_DIGITS = re.compile(r"\d+")
_WORD = re.compile(r"[^\W\d_]+")
_WORD_OR_NUMBER = re.compile(r"\w+")
_WORD_BEFORE = re.compile(r"([^\W\d_]+)[\W_]*$")
_EAST_ASIAN = re.compile("(?:[第页頁共]|ページ)+")
_DATE = re.compile(r"(?<!\d)\d{1,4}(?:[ \t]{0,3}[-–—/.][ \t]{0,3}\d{1,4}){2}(?!\d)")
_SET_APART_BEHIND = re.compile(r"[^\w\s|•·]*(?:\t|  |[ \t]*[|•·])")
_LABEL = (":", "#", "№")  # what ends so names the number behind it
_SET_APART_BEFORE = re.compile(r"(?<![:#№])(?:\t|  |[|•·][ \t]*)[^\w\s|•·]*$")
_DASH_BEHIND = re.compile(r"[^\w\s]*[ \t]+[-–—/][ \t]")
_DASH_BEFORE = re.compile(r"(?<![:#№])[ \t][-–—/][ \t]+[^\w\s]*$")
_LETTER_BEFORE = re.compile(r"(?:^|\s)[^\W\d_]-$")  # the page A-1 of an appendix
_NUMBERED = re.compile(r"(?:[:#№]|\b(?:nos?|nr|n[uú]m|n[º°]?)\b\.?)[ \t]*$", re.IGNORECASE)
_EDGE = " \t-–—.·[]()|"
_ROMAN = re.compile(r"[ivxlc]{1,9}", re.IGNORECASE)
_VALUES = {"i": 1, "v": 5, "x": 10, "l": 50, "c": 100}


class Line(NamedTuple):
    """A line of a page.

    Attributes:
        text: With a tab or several blanks where a number at its start or end stands far from its words.
        height: Of its middle, 0 at the foot of the page, 1 at its head.
    """

    text: str
    height: float


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A line in a margin.

    Attributes:
        page: From 0.
        line: Its number on the page.
        place: Its height.
        words: Without figures and blanks.
        numbers: In it.
        own: Which of them may be left out because they can be the page's.
        bare: Whether it is nothing but a page number.
    """

    page: int
    line: int
    place: int
    words: str
    numbers: tuple[int, ...]
    own: tuple[bool, ...]
    bare: bool


def running_lines(pages: Sequence[Sequence[Line]], *, titles: Collection[tuple[int, str]] = ()) -> list[frozenset[int]]:
    """Find the lines to leave out.

    The rule: a line among the three outermost of the upper or lower 15 % of the page, with nothing
    but such lines outside of it, is running if on 4 pages or more the same words and numbers stand at
    the same height (within 1 % of the page's); a number that counts with the pages is ignored if it
    is the page's: set apart from the words, beside a word for page, or among more than 20 letters
    ("Lesson 3" and "3 May 2024" are headings). One no greater than the page's own number is also set
    apart by a dash or slash between blanks, and by a blank from two words or more at the foot, where
    headings do not stand. A running line whose words no other line of the file
    has stays where it stands first, so that nothing is lost. Page numbers (one or two figures or a
    Roman numeral, alone or with words for page, that count with the pages) go everywhere.

    Args:
        pages: The lines of each page, in any order.
        titles: Pages, from 0, and the bookmarks that lead to them: lines that say the same are headings.

    Returns:
        For each page the numbers of its lines to leave out.
    """
    known_titles = {(page, _squeezed(title)) for page, title in titles}
    margins = [
        [_margin(number, lines, known_titles, upper=upper) for upper in (True, False)]
        for number, lines in enumerate(pages)
    ]
    candidates = [line for page in margins for margin in page for line in margin]
    running, counting = _running(candidates)
    body = _body(pages, running | counting)
    first: set[str] = set()
    out: list[frozenset[int]] = []
    for page in margins:
        leave = []
        for margin in page:
            for line in margin:
                known = (line.page, line.line)
                if known in running and known not in counting:
                    if line.words not in first and line.words not in body:
                        first.add(line.words)
                        continue
                elif known not in counting:
                    break
                leave.append(line.line)
        out.append(frozenset(leave))
    return out


def _margin(page: int, lines: Sequence[Line], titles: set[tuple[int, str]], *, upper: bool) -> list[_Candidate]:
    """The outermost lines of a margin, from the edge inwards."""
    inside = [
        (n, line) for n, line in enumerate(lines) if (line.height > 1 - MARGIN if upper else line.height < MARGIN)
    ]
    inside.sort(key=lambda found: (-found[1].height if upper else found[1].height, found[0]))
    labels = [line.height for _, line in inside if line.text.rstrip().endswith(_LABEL)]
    return [
        _candidate(
            page,
            number,
            line,
            is_foot=not upper and line.height - inside[0][1].height <= TOLERANCE,
            is_title=(page, _squeezed(line.text)) in titles,
            is_labelled=any(abs(height - line.height) <= TOLERANCE for height in labels),
        )
        for number, line in inside[:MOST_LINES]
    ]


def _candidate(page: int, number: int, line: Line, *, is_foot: bool, is_title: bool, is_labelled: bool) -> _Candidate:
    place = round(line.height / TOLERANCE)
    numeral = line.text.strip(_EDGE).lower()
    if _ROMAN.fullmatch(numeral):
        return _Candidate(page, number, place, "", (_roman(numeral),), (True,), bare=True)
    words = _words(line.text)
    figures = list(_DIGITS.finditer(line.text))
    # Three figures are a date.
    bare = not is_labelled and len(figures) <= 2 and all(map(_is_page_word, _WORD.findall(line.text)))
    may = not is_title and not is_labelled and len(figures) <= MOST_FIGURES
    many = _letters(words) > FEW_LETTERS
    own = tuple(
        len(f.group()) < MOST_DIGITS
        and (bare or (may and (many or _is_set_apart(f) or _is_loose(f, page + 1, is_foot=is_foot))))
        for f in figures
    )
    return _Candidate(page, number, place, words, tuple(int(f.group()[-DIGITS_TOLD:]) for f in figures), own, bare=bare)


def _is_set_apart(number: re.Match[str]) -> bool:
    """Whether a number in a line is beside a word for page, or alone at its start or end."""
    line = number.string
    before, after = line[max(number.start() - BESIDE, 0) : number.start()], line[number.end() : number.end() + BESIDE]
    word = _WORD_BEFORE.search(before)
    if word and _is_page_word(word[1]):
        return True
    if not before.strip(_EDGE) and _SET_APART_BEHIND.match(after):
        return True
    return not after.strip(_EDGE) and _SET_APART_BEFORE.search(before) is not None


def _is_loose(number: re.Match[str], most: int, *, is_foot: bool) -> bool:
    """Whether a number up to `most` is alone at its line's start or end by a dash or slash, or by a foot's blank."""
    line = number.string
    if int(number.group()) > most or any(d.start() <= number.start() < d.end() for d in _DATE.finditer(line)):
        return False
    before, after = line[max(number.start() - BESIDE, 0) : number.start()], line[number.end() : number.end() + BESIDE]
    first, last = not before.strip(_EDGE), not after.strip(_EDGE)
    if (first and _DASH_BEHIND.match(after)) or (last and _DASH_BEFORE.search(before)):
        return True
    return (
        is_foot
        and (
            (last and _LETTER_BEFORE.search(before) is not None)
            # "Plate 3" may be a caption, "3 May" a day.
            or (first and after[:1].isspace() and not line.rstrip()[-1].isdigit() and _has_words(line))
            or (last and before[-1:].isspace() and not _NUMBERED.search(before) and _has_words(line))
        )
    )


def _has_words(line: str) -> bool:
    return len(_WORD_OR_NUMBER.findall(line)) > FEW_WORDS


def _is_page_word(word: str) -> bool:
    return word.casefold() in PAGE_WORDS or _EAST_ASIAN.fullmatch(word) is not None


def _running(candidates: Sequence[_Candidate]) -> tuple[set[tuple[int, int]], set[tuple[int, int]]]:
    """Page and number of the lines that stay the same from page to page, and of those that are page numbers."""
    alike: dict[tuple[str, int | None, tuple[int | None, ...]], list[_Candidate]] = defaultdict(list)
    for line in candidates:
        alike[line.words, None, line.numbers].append(line)
        # Without the numbers that count with the pages: each that may, or all of a step.
        for step in {number - line.page for number, own in zip(line.numbers, line.own, strict=True) if own}:
            at = [n for n, number in enumerate(line.numbers) if number - line.page == step]
            for ignored in {(n,) for n in at} | {tuple(at)}:
                if all(line.own[n] for n in ignored):
                    left = [None if n in ignored else number for n, number in enumerate(line.numbers)]
                    alike[line.words, step, tuple(left)].append(line)
    running: set[tuple[int, int]] = set()
    counting: set[tuple[int, int]] = set()
    for (words, counted_by, _), lines in alike.items():
        alike_here = list(_at_one_place(lines))
        if _letters(words):
            running |= {(line.page, line.line) for line in alike_here}
        if counted_by is not None:
            counting |= {(line.page, line.line) for line in alike_here if line.bare}
    return running, counting


def _body(pages: Sequence[Sequence[Line]], left: set[tuple[int, int]]) -> str:
    """The words of all other lines, as those of candidates are written."""
    return "\n".join(
        _words(line.text)
        for page, lines in enumerate(pages)
        for number, line in enumerate(lines)
        if (page, number) not in left
    )


def _squeezed(text: str) -> str:
    return "".join(text.casefold().split())


def _letters(text: str) -> int:
    return sum(c.isalpha() for c in text)


def _words(text: str) -> str:
    return "".join(_DIGITS.sub("", text).casefold().split())


def _at_one_place(lines: Sequence[_Candidate]) -> Iterator[_Candidate]:
    pages = Counter(place for _, place in {(line.page, line.place) for line in lines})
    for line in lines:
        # A hair's breadth may lie on the other side of a border between places.
        near = sum(pages[line.place + away] for away in (-1, 0, 1))
        if near >= MIN_PAGES:
            yield line


def _roman(text: str) -> int:
    values = [_VALUES[c] for c in text]
    return sum(-v if v < after else v for v, after in zip(values, [*values[1:], 0], strict=True))
