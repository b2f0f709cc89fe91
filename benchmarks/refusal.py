"""Answers and refusals of the extractive answerer on SQuAD 2.0, beside always answering.

    python benchmarks/refusal.py [--data ../shared/data] [--model mini] [--questions 600] [--cache FOLDER]

The questions are drawn by a fixed seed from those that benchmarks/threshold.py does not look at, half of
which chose the threshold. The passages searched are all paragraphs of the set.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from m3rag.answering import Extractive
from m3rag.collection import Collection
from m3rag.evaluation.corpus import take_corpus
from m3rag.evaluation.datasets import load_corpus
from m3rag.evaluation.judging import JudgedAnswer, judge, summary
from m3rag.evaluation.questions import EvalQuestion, load_eval_questions
from m3rag.settings import Settings

PASSAGES = 5
ALWAYS = -2.0  # a threshold below any support
SHOWN = ("f1", "exact_match", "holds", "f1_all", "refusal_precision", "refusal_recall", "refusal_f1",
         "citation_precision", "citation_recall")  # fmt: skip


def drawn(questions: Sequence[EvalQuestion], n: int, *, seed: int = 1) -> list[EvalQuestion]:
    """Questions that benchmarks/threshold.py, with its own defaults, does not look at."""
    order = [questions[i] for i in np.random.default_rng(0).permutation(len(questions))]
    seen = [q for q in order if q.answers][:600] + [q for q in order if not q.answers][:300]
    ids = {question.id for question in seen}
    rest = [question for question in questions if question.id not in ids]
    return [rest[i] for i in np.random.default_rng(seed).permutation(len(rest))[:n]]


def measure(
    collection: Collection, questions: Sequence[EvalQuestion], thresholds: Sequence[float | None]
) -> list[list[JudgedAnswer]]:
    """Every question answered from the same passages with each threshold."""
    answerers = [Extractive(collection.encoder, collection.store, threshold=threshold) for threshold in thresholds]
    judged: list[list[JudgedAnswer]] = [[] for _ in answerers]
    for number, question in enumerate(questions, start=1):
        hits = collection.search(question.query, k=PASSAGES)
        for answerer, found in zip(answerers, judged, strict=True):
            found.append(judge(question, answerer.answer(question.query, hits), collection.store))
        if number % 50 == 0:
            print(f"{number} of {len(questions)}", file=sys.stderr)
    return judged


def main(argv: Sequence[str] | None = None) -> int:
    """Run and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--questions", type=int, default=600)
    parser.add_argument("--cache", type=Path, help="folder to keep the encoded paragraphs in")
    options = parser.parse_args(argv)

    folder = options.data / "rag" / "squad-v2.0-dev"
    questions = drawn(load_eval_questions(folder / "en.jsonl"), options.questions)
    with (
        tempfile.TemporaryDirectory() as temporary,
        Collection((options.cache or Path(temporary)) / "squad", settings=Settings(model=options.model)) as collection,
    ):
        take_corpus(
            collection, load_corpus(folder / "corpus.jsonl"), progress=lambda n, of: print(n, of, file=sys.stderr)
        )
        found = measure(collection, questions, (None, ALWAYS))
    answerable = sum(bool(question.answers) for question in questions)
    print(f"model {options.model}, {len(questions)} questions, {answerable} of them answerable\n")
    print(f"| | answered | {' | '.join(name.replace('_', ' ') for name in SHOWN)} |")
    print("|---|" + "--:|" * (len(SHOWN) + 1))
    for name, judged in zip(("extractive", "always answering"), found, strict=True):
        figures = summary(judged)
        cells = ["-" if figures[key] is None else f"{figures[key]:.3f}" for key in SHOWN]
        print(f"| {name} | {sum(one.answered for one in judged)} | {' | '.join(cells)} |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
