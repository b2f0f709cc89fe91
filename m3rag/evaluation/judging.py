"""Answers judged: exact match and F1, refusals against unanswerable questions, citations against gold spans."""

from __future__ import annotations

import re
import time
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from m3rag.answering.citations import without_marks
from m3rag.bm25.tokenizers import UNSPACED
from m3rag.evaluation.answers import exact_match, f1, tokens
from m3rag.evaluation.labelled import judgements, unit_of
from m3rag.evaluation.metrics import mean
from m3rag.evaluation.questions import EvalQuestion
from m3rag.store.protocol import Store
from m3rag.types import Answer, Chunk

Progress = Callable[[int, int], None]

FIGURES = (
    "exact_match",
    "f1",
    "holds",
    "f1_all",
    "refusal_precision",
    "refusal_recall",
    "refusal_f1",
    "citation_precision",
    "citation_recall",
)
"""The shares of a `summary`."""

UNSPACED_CHARACTER = re.compile(f"[{UNSPACED}]")

GoldSpan = tuple[str, int, int]
"""Document id, first character and one past the last, in the document's text."""


@dataclass(frozen=True, slots=True)
class JudgedAnswer:
    """One answer beside what would have been right.

    Attributes:
        id: The question's.
        answerable: Whether the documents answer it.
        answered: Whether it was answered.
        text: The answer without its marks, "" for a refusal.
        exact_match: 0 or 1; refusing is right where there is no answer, as in SQuAD 2.0.
        f1: [0, 1], likewise.
        holds: Whether a right answer stands word for word in the text; False where there is none.
        citations: How many there are.
        right_citations: How many of them overlap a gold span; None where no gold span is known.
        seconds: From the question to the whole answer.
    """

    id: str
    answerable: bool
    answered: bool
    text: str
    exact_match: float
    f1: float
    holds: bool
    citations: int
    right_citations: int | None
    seconds: float


def judge_all(
    ask: Callable[[str], Answer],
    questions: Sequence[EvalQuestion],
    store: Store,
    *,
    into: list[JudgedAnswer] | None = None,
    progress: Progress | None = None,
) -> list[JudgedAnswer]:
    """Ask every question whose right answers are known, and judge what comes back.

    Args:
        ask: Such as `KnowledgeBase.ask`.
        questions: Those that do not say what is right are left out.
        store: Where the passages are, to find the gold spans in them.
        into: Filled as questions are done, so that whoever interrupts this has what was done.
        progress: Called with the number of questions done and of all.
    """
    judged: list[JudgedAnswer] = [] if into is None else into
    asked = [question for question in questions if question.answers is not None]
    for number, question in enumerate(asked, start=1):
        started = time.perf_counter()
        answer = ask(question.query)
        judged.append(judge(question, answer, store, seconds=time.perf_counter() - started))
        if progress:
            progress(number, len(asked))
    return judged


def judge(question: EvalQuestion, answer: Answer, store: Store, *, seconds: float = 0.0) -> JudgedAnswer:
    """Judge one answer; the question must say what is right (`answers` is not None)."""
    gold, lang = question.answers or (), question.lang or "en"
    text = without_marks(answer.text).strip() if answer.answered else ""
    spans = gold_spans(question, store)
    right = sum(any(_overlaps(c.document_id, c.start, c.end, span) for span in spans) for c in answer.citations)
    return JudgedAnswer(
        id=question.id,
        answerable=bool(gold),
        answered=answer.answered,
        text=text,
        exact_match=exact_match(text, gold, lang=lang),
        f1=f1(text, gold, lang=lang),
        holds=any(_contains(tokens(text, lang=lang), tokens(one, lang=lang)) for one in gold),
        citations=len(answer.citations),
        right_citations=right if spans else None,
        seconds=seconds,
    )


def gold_spans(question: EvalQuestion, store: Store) -> list[GoldSpan]:
    """Wherever a right answer stands in what is relevant to the question, case, white space and normal form apart.

    As whole words; where it stands nowhere so, at the start or end of one. Scripts without spaces have no such ends.
    Empty if the question is unanswerable, has no labels, or its answers do not stand there in these words.
    """
    if not question.answers or not question.relevant:
        return []
    found = judgements(question.labelled, store)
    spans: list[GoldSpan] = []
    for document_id, text in _texts(found.gains, found.level, store):
        for answer in question.answers:
            spans += [(document_id, *span) for span in _occurrences(answer, text)]
    return list(dict.fromkeys(spans))


def summary(judged: Sequence[JudgedAnswer]) -> dict[str, float | None]:
    """The figures of many answers, each in [0, 1] but for the counts.

    Returns:
        `questions`, `answerable`; `exact_match`, `f1` and `holds` over answerable questions, refusals
        counting 0; `f1_all` over all, as in SQuAD 2.0; `refusal_precision`, `refusal_recall` and
        `refusal_f1` of saying that there is no answer; `citation_precision`, the share of all citations that
        overlap a gold span, and `citation_recall`, the share of questions with one that does, over the
        questions whose gold spans are known. None where there is nothing to take a share of.
    """
    can = [one for one in judged if one.answerable]
    refused = [one for one in judged if not one.answered]
    unanswerable = [one for one in judged if not one.answerable]
    right = sum(not one.answerable for one in refused)
    cited = [(one.citations, one.right_citations) for one in judged if one.right_citations is not None]
    return {
        "questions": len(judged),
        "answerable": len(can),
        "exact_match": _mean([one.exact_match for one in can]),
        "f1": _mean([one.f1 for one in can]),
        "holds": _mean([float(one.holds) for one in can]),
        "f1_all": _mean([one.f1 for one in judged]),
        "refusal_precision": _share(right, len(refused)),
        "refusal_recall": _share(right, len(unanswerable)),
        "refusal_f1": _share(2 * right, len(refused) + len(unanswerable)),
        "citation_precision": _share(sum(n for _, n in cited), sum(n for n, _ in cited)),
        "citation_recall": _share(sum(n > 0 for _, n in cited), len(cited)),
    }


def _texts(units: dict[tuple[str, int], int], level: str, store: Store) -> list[tuple[str, str]]:
    """The relevant texts, each at its place in its document: blanks stand for what is not relevant."""
    found = []
    for unit in sorted(units):
        chunks = store.get([unit[0]]) if level == "chunk" else store.chunks_of(unit[0])
        kept = [chunk for chunk in chunks if level != "page" or unit_of(chunk, "page") == unit]
        if kept:
            found.append((kept[0].document_id, _laid_out(kept)))
    return found


def _laid_out(chunks: Sequence[Chunk]) -> str:
    text = ""
    for chunk in sorted(chunks, key=lambda chunk: (chunk.start, chunk.id)):
        text = text.ljust(chunk.start)[: max(chunk.start, 0)] + chunk.text + text[chunk.start + len(chunk.text) :]
    return text


def _occurrences(answer: str, text: str) -> list[tuple[int, int]]:
    forms = (answer, *(unicodedata.normalize(form, answer) for form in ("NFC", "NFD", "NFKC", "NFKD")))
    return next((found for form in dict.fromkeys(forms) if (found := _stands_at(form, text))), [])


def _stands_at(answer: str, text: str) -> list[tuple[int, int]]:
    words = answer.split()
    if not words:
        return []
    first, last, inner = words[0][0], words[-1][-1], r"\s+".join(re.escape(word) for word in words)
    left = "" if UNSPACED_CHARACTER.match(first) else r"(?<!\w)"
    right = "" if UNSPACED_CHARACTER.match(last) else r"(?!\w)"
    # Many languages join words, so one end may lie within one ("Ente" in "Entenjagd"), but "US" is not found
    # within "houses", nor "13" within "2013".
    open_left, open_right = r"(?<!\d)" if first.isdigit() else "", r"(?!\d)" if last.isdigit() else ""
    for pattern in (left + inner + right, f"{left}{inner}{open_right}|{open_left}{inner}{right}"):
        found = [match.span() for match in re.finditer(pattern, text, re.IGNORECASE)]
        if found:
            return found
    return []


def _overlaps(document_id: str, start: int, end: int, span: GoldSpan) -> bool:
    return document_id == span[0] and start < span[2] and span[1] < end


def _contains(text: Sequence[str], part: Sequence[str]) -> bool:
    n = len(part)
    return n > 0 and any(list(text[i : i + n]) == list(part) for i in range(len(text) - n + 1))


def _mean(values: Sequence[float]) -> float | None:
    return mean(values) if values else None


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None
