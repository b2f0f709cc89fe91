"""Checks the `[n]` marks of an answer and finds, for each, the words of the passage behind it."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from m3rag.sentences import UNSPACED, Span, sentence_spans
from m3rag.types import Chunk, Citation

PageOf = Callable[[str, int], int | None]
"""Gives the page number for a document id and a character offset in that document."""

# [1], [1, 2], [1-3], [^1], 【1】, ［１］; `\d` knows the digits of every script.
MARK = re.compile(r"[\[【［〔]\s*(\^?\d{1,3}(?:\s*[,，、;；–—-]\s*\^?\d{1,3})*)\s*[\]】］〕]")
CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]+`(?!``)", re.DOTALL)
IDENTIFIER = re.compile(r"[A-Za-z0-9_)]\Z")
CODE_NAME = re.compile(  # a, max_size, f(x), sys.argv, int8
    r"(?:(?<!\w)[A-Za-z]|[^\W_]_[^\W_]\w*|\w\([^\s()。，]*\)|\w\.[A-Za-z_]\w*|[A-Za-z]\d+)\Z"
)
LONGEST_NAME = 60
INVENTED_UP_TO = 20
"""Numbers that a model invents; others directly behind a word are of an array, such as `args[0]` and `buf[64]`."""
DANGLING = ("", *"\n.,:;!?)。，、；：！？）")  # no blank stands before these

# \w leaves out the vowel signs of Indic and South-East Asian scripts and Arabic, Hebrew points.
WORD = re.compile(
    r"(?:\w|[\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0900-\u0963\u0966-\u0dff\u0e00-\u1049"
    r"\u104c-\u109f\u1780-\u17d3])+"
)

LEAST_COVERAGE = 0.1
"""Share of the claim a sentence must hold before it is called its support."""
NEIGHBOUR_GAIN = 0.2
"""Share of the claim a neighbouring sentence must add before the quote is widened by it."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A mark that was read: where it stood in the answer, and the passages it names (from 0)."""

    start: int
    end: int
    passages: tuple[int, ...]


def cite(text: str, passages: Sequence[Chunk], *, page_of: PageOf | None = None) -> tuple[str, tuple[Citation, ...]]:
    """Check the marks of an answer against its passages.

    A bracketed number that names a passage is a mark. One that names none is dropped where it looks
    like a mark: one or two digits; directly behind a word 1 to 20, and not behind what looks like a name in code. So
    `args[0]`, `buf[64]`, `sys.argv[7]`, `max_size[7]`, `f(x)[7]` and `[2024]` stay, and so does everything in Markdown
    code. Marks are renumbered from 1 in order of appearance;
    a passage that is cited for two different quotes gets two numbers, so that each opens its own.

    Args:
        text: The answer; `[n]` means `passages[n - 1]`.
        passages: What the answer was made from, in the order it was numbered.
        page_of: Looks up the page of a quote; without it a quote has the page its chunk starts on.

    Returns:
        The text with checked marks in the form `[1][2]`, and a citation for each number. Each
        quote is the sentence or two that support the marked sentence best, the whole passage where
        none shares words with it (an answer in another language).
    """
    text = without_dead_marks(text, len(passages))
    marks = list(find_marks(text, len(passages)))
    plain, positions = cut_out(text, marks)
    claims = sentence_spans(plain)
    numbers: dict[tuple[int, Span], int] = {}
    pieces: list[str] = []
    last = 0
    for position, passage in dict.fromkeys(
        (p, i) for mark, p in zip(marks, positions, strict=True) for i in mark.passages
    ):
        quote = best_quote(_claim(plain, claims, position), passages[passage].text)
        number = numbers.setdefault((passage, quote), len(numbers) + 1)
        pieces += [plain[last:position], f"[{number}]"]
        last = position
    pieces.append(plain[last:])
    citations = tuple(
        quotation(passages[passage], quote, number=number, page_of=page_of)
        for (passage, quote), number in numbers.items()
    )
    return "".join(pieces).strip(), citations


def quotation(chunk: Chunk, span: Span, *, number: int, page_of: PageOf | None = None) -> Citation:
    """The citation of a span of a chunk's text."""
    start, end = chunk.start + span[0], chunk.start + span[1]
    return Citation(
        number=number,
        document_id=chunk.document_id,
        page=chunk.page if page_of is None else page_of(chunk.document_id, start),
        start=start,
        end=end,
        quote=chunk.text[span[0] : span[1]],
        chunk_id=chunk.id,
    )


def without_marks(text: str) -> str:
    """A text without anything that looks like a mark, such as a source's own footnote numbers."""
    return without_dead_marks(text, 0).strip()


def in_round_brackets(text: str, numbers: int | None = None) -> str:
    """A text whose own bracketed numbers name no citation: `array[2]` becomes `array(2)`, in code as well.

    Args:
        text: The words of a source.
        numbers: Only what names a citation from 1 to this number is changed; None changes them all.
    """
    return MARK.sub(
        lambda mark: f"({mark[0][1:-1]})" if numbers is None or _numbers(mark[1], numbers) else mark[0], text
    )


def best_quote(claim: str, passage: str) -> Span:
    """The span of the passage that supports a claim best, by shared words.

    Words that many of the passage's sentences hold weigh little. Scripts without blanks between
    words are compared by pairs of characters.
    """
    spans = sentence_spans(passage)
    sentences = [_features(passage[a:b]) for a, b in spans]
    frequency = Counter(word for sentence in sentences for word in sentence)
    wanted = {word: math.log1p(len(spans) / (1 + frequency[word])) for word in sorted(_features(claim))}
    total = sum(wanted.values())

    def coverage(words: set[str]) -> float:
        return sum(weight for word, weight in wanted.items() if word in words) / total

    if not total or not spans:
        return 0, len(passage)
    scores = [coverage(words) for words in sentences]
    best = max(range(len(spans)), key=lambda i: (scores[i], -i))
    if scores[best] < LEAST_COVERAGE:
        return 0, len(passage)
    neighbours = [i for i in (best - 1, best + 1) if 0 <= i < len(spans)]
    gains = {i: coverage(sentences[best] | sentences[i]) - scores[best] for i in neighbours}
    widest = max(neighbours, key=lambda i: (gains[i], i), default=best)
    if gains.get(widest, 0.0) < NEIGHBOUR_GAIN:
        widest = best
    return spans[min(best, widest)][0], spans[max(best, widest)][1]


def find_marks(text: str, passages: int) -> Iterator[Mark]:
    """All marks outside code, those that name no passage included.

    Without passages the text is a source's own, where any word before brackets may be the name of an array.
    """
    code = [m.span() for m in CODE.finditer(text)]
    for match in MARK.finditer(text):
        if any(start <= match.start() < end for start, end in code):
            continue
        numbers = _numbers(match[1], passages)
        if numbers:
            yield Mark(match.start(), match.end(), tuple(n - 1 for n in numbers))
        elif _looks_invented(text, match, in_a_source=not passages):
            yield Mark(match.start(), match.end(), ())


def _looks_invented(text: str, match: re.Match[str], *, in_a_source: bool) -> bool:
    numbers = re.findall(r"\d+", match[1])
    before = max(0, match.start() - LONGEST_NAME), match.start()
    if not IDENTIFIER.search(text, *before):
        return all(len(digits) <= 2 for digits in numbers)
    if in_a_source or CODE_NAME.search(text, *before):
        return False
    return all(1 <= int(digits) <= INVENTED_UP_TO for digits in numbers)


def _numbers(listed: str, passages: int) -> list[int]:
    """The passage numbers that a mark such as `1, 3-5` names, without those that do not exist."""
    numbers: dict[int, None] = {}
    for part in re.split(r"[,，、;；]", listed):
        ends = sorted(int(digits) for digits in re.findall(r"\d+", part))
        numbers |= dict.fromkeys(range(max(1, ends[0]), min(passages, ends[-1]) + 1))
    return list(numbers)


def without_dead_marks(text: str, passages: int) -> str:
    """Drop the marks that name no passage, and the blank that would be left double or dangling."""
    # Again until none is left: dropping [9] from [[9]8] makes a new one.
    while dead := [mark for mark in find_marks(text, passages) if not mark.passages]:
        kept, last = "", 0
        for mark in dead:
            kept += text[last : mark.start]
            last = mark.end
            if kept[-1:] in ("", " ", "\t", "\n"):
                last += len(text[last:]) - len(text[last:].lstrip(" "))
                if text[last : last + 1] in DANGLING and kept.endswith(" "):
                    kept = kept[:-1]
        text = kept + text[last:]
    return text


def cut_out(text: str, marks: Sequence[Mark]) -> tuple[str, list[int]]:
    """The text without the marks, and the position of each mark in it."""
    pieces, positions, last, length = [], [], 0, 0
    for mark in marks:
        pieces.append(text[last : mark.start])
        length += mark.start - last
        positions.append(length)
        last = mark.end
    return "".join([*pieces, text[last:]]), positions


def _claim(plain: str, sentences: Sequence[Span], position: int) -> str:
    """The sentence that bears a mark: the last to begin before it, since marks may follow the stop."""
    before = [span for span in sentences if span[0] < position] or list(sentences[:1])
    return plain[before[-1][0] : before[-1][1]] if before else ""


def _features(text: str) -> set[str]:
    """What two texts are compared by: words, or pairs of characters where words are not set apart."""
    features: set[str] = set()
    for word in WORD.findall(text.casefold()):
        if UNSPACED.search(word) and len(word) > 1:
            features |= {word[i : i + 2] for i in range(len(word) - 1)}
        else:
            features.add(word)
    return features
