"""Answers and refusals of the extractive answerer on SQuAD 2.0, beside always answering and language models.

    python benchmarks/refusal.py [--data ../shared/data] [--model mini] [--questions 600] [--cache FOLDER]
        [--llm FILE.gguf] [--llm NAME] [--max-tokens 256] [--threads N]

Each --llm answers the same questions from the same passages: a GGUF file, or a model behind OPENAI_BASE_URL. A reply
that is cut at --max-tokens, where `m3rag ask` would fail, is judged as far as it goes, and counted.

The questions are drawn by a fixed seed from those that benchmarks/threshold.py does not look at, half of
which chose the threshold. The passages searched are all paragraphs of the set.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from m3rag.answering import Answerer, Extractive, Generative, OpenAIChat
from m3rag.answering.local import LocalChat
from m3rag.collection import Collection
from m3rag.errors import LLMError
from m3rag.evaluation.corpus import take_corpus
from m3rag.evaluation.datasets import load_corpus
from m3rag.evaluation.judging import JudgedAnswer, judge, summary
from m3rag.evaluation.questions import EvalQuestion, load_eval_questions
from m3rag.settings import Settings
from m3rag.types import Answer, Hit

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


def language_model(name: str, *, max_tokens: int, threads: int | None) -> LocalChat | OpenAIChat:
    """A GGUF file, or a model behind OPENAI_BASE_URL."""
    if name.casefold().endswith(".gguf"):
        return LocalChat(name, max_tokens=max_tokens, threads=threads)
    return OpenAIChat(name, max_tokens=max_tokens)


def answered(answerer: Answerer, question: str, hits: Sequence[Hit]) -> tuple[Answer, bool]:
    """The answer, and whether it is whole; one that is cut is what was written until then."""
    pieces: list[str] = []
    try:
        for event in answerer.stream(question, hits):
            if isinstance(event, Answer):
                return event, True
            pieces.append(event)
    except LLMError as error:
        print(f"{question}: {error}", file=sys.stderr)
    return Answer(text="".join(pieces) or "no reply", citations=(), hits=tuple(hits), answered=True), False


def measure(
    collection: Collection, questions: Sequence[EvalQuestion], answerers: Mapping[str, Answerer]
) -> tuple[dict[str, list[JudgedAnswer]], dict[str, int]]:
    """Every question answered from the same passages by each answerer, and how many answers were cut."""
    judged: dict[str, list[JudgedAnswer]] = {name: [] for name in answerers}
    cut = dict.fromkeys(answerers, 0)
    for number, question in enumerate(questions, start=1):
        hits = collection.search(question.query, k=PASSAGES)
        for name, answerer in answerers.items():
            started = time.perf_counter()
            answer, whole = answered(answerer, question.query, hits)
            seconds = time.perf_counter() - started
            judged[name].append(judge(question, answer, collection.store, seconds=seconds))
            cut[name] += not whole
        if number % 10 == 0:
            print(f"{number} of {len(questions)}", file=sys.stderr)
    return judged, cut


def print_table(judged: Mapping[str, Sequence[JudgedAnswer]], cut: Mapping[str, int]) -> None:
    """A Markdown table, a row for each answerer."""
    print(f"| | answered | cut | {' | '.join(name.replace('_', ' ') for name in SHOWN)} | s, median |")
    print("|---|" + "--:|" * (len(SHOWN) + 3))
    for name, found in judged.items():
        figures = summary(found)
        cells = ["-" if figures[key] is None else f"{figures[key]:.3f}" for key in SHOWN]
        count, seconds = sum(one.answered for one in found), np.median([one.seconds for one in found])
        print(f"| {name} | {count} | {cut[name]} | {' | '.join(cells)} | {seconds:.2f} |")


def main(argv: Sequence[str] | None = None) -> int:
    """Run and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--questions", type=int, default=600)
    parser.add_argument("--cache", type=Path, help="folder to keep the encoded paragraphs in")
    parser.add_argument("--llm", action="append", default=[], help="a GGUF file, or a model behind OPENAI_BASE_URL")
    parser.add_argument("--max-tokens", type=int, default=256, help="of a language model's reply")
    parser.add_argument("--threads", type=int, help="of a GGUF model")
    options = parser.parse_args(argv)

    folder = options.data / "rag" / "squad-v2.0-dev"
    questions = drawn(load_eval_questions(folder / "en.jsonl"), options.questions)
    with ExitStack() as stack:
        temporary = stack.enter_context(tempfile.TemporaryDirectory())
        place = (options.cache or Path(temporary)) / "squad"
        collection = stack.enter_context(Collection(place, settings=Settings(model=options.model)))
        take_corpus(
            collection, load_corpus(folder / "corpus.jsonl"), progress=lambda n, of: print(n, of, file=sys.stderr)
        )
        answerers: dict[str, Answerer] = {
            "extractive": Extractive(collection.encoder, collection.store),
            "always answering": Extractive(collection.encoder, collection.store, threshold=ALWAYS),
        }
        for name in options.llm:
            llm = stack.enter_context(language_model(name, max_tokens=options.max_tokens, threads=options.threads))
            answerers[llm.name] = Generative(llm)
        judged, cut = measure(collection, questions, answerers)
    answerable = sum(bool(question.answers) for question in questions)
    print(f"model {options.model}, {len(questions)} questions, {answerable} of them answerable\n")
    print_table(judged, cut)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
