"""Set the extractive answerer's threshold on SQuAD 2.0, and show what it does on other questions.

    python benchmarks/threshold.py [--data ../shared/data] [--model mini] [--questions 600]

Half of the drawn questions choose the threshold: the one with the best mean of (answerable questions
answered) and (questions refused whose paragraph was taken away). The other half, never looked at for
the choice, is what the table shows, beside SQuAD's own unanswerable questions, which are written to
look answerable, and questions in other languages about English paragraphs.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from m3rag.answering import Extractive
from m3rag.encoder import M3Encoder
from m3rag.evaluation.answers import normalize
from m3rag.evaluation.datasets import Question, load_beir, load_questions
from m3rag.retrieval import HybridRetriever
from m3rag.store import DocumentRecord, QdrantEdgeStore
from m3rag.types import Answer, Chunk

PASSAGES = 5
ALWAYS = -2.0  # a threshold below any support


class Reader:
    """Retrieval and extraction over a set of paragraphs, without refusals."""

    def __init__(self, encoder: M3Encoder, paragraphs: Mapping[str, str], folder: Path) -> None:
        starts = np.cumsum([0, *map(len, paragraphs.values())]).tolist()
        chunks = [
            Chunk(id=id, document_id="all", text=text, start=start, end=start + len(text))
            for (id, text), start in zip(paragraphs.items(), starts, strict=False)
        ]
        store = QdrantEdgeStore.create(folder, encoder.info)
        record = DocumentRecord(id="all", title="", version="1", chunks=len(chunks))
        store.put_document(record, [(chunks, encoder.encode_documents(list(paragraphs.values())))])
        self.retriever = HybridRetriever(encoder, store)
        self.extractive = Extractive(encoder, store, threshold=ALWAYS)

    def read(self, question: Question, *, without: Sequence[str] = ()) -> Answer:
        """The best answer from the best passages, some paragraphs left out."""
        hits = self.retriever.search(question.question, k=PASSAGES + len(without))
        return self.extractive.answer(question.question, [h for h in hits if h.chunk.id not in without][:PASSAGES])


def supports(answers: Sequence[Answer]) -> np.ndarray:
    """The support of each answer, `(n,)`; what is refused at any threshold has none."""
    return np.array([answer.support if answer.answered else ALWAYS for answer in answers])


def holds(question: Question, answer: Answer) -> bool:
    """Whether a gold answer stands in the sentences shown."""
    shown = normalize(" ".join(c.quote for c in answer.citations))
    return any(normalize(gold) in shown for gold in question.answers)


def choose(answered: np.ndarray, unsupported: np.ndarray) -> float:
    """The threshold with the best mean of answered and refused, to three digits."""
    grid = np.arange(-0.2, 0.9, 0.001)
    quality = [(answered >= t).mean() + (unsupported < t).mean() for t in grid]
    return round(float(grid[int(np.argmax(quality))]), 3)


def auroc(positive: np.ndarray, negative: np.ndarray) -> float:
    """How often an answerable question has more support than an unanswerable one."""
    return float((positive[:, None] > negative).mean() + 0.5 * (positive[:, None] == negative).mean())


def main() -> None:
    """Run and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--model", default="mini")
    parser.add_argument("--questions", type=int, default=600, help="answerable ones, half of them to choose with")
    options = parser.parse_args()

    squad = load_questions(options.data / "rag/squad-v2.0-dev/en.jsonl")
    drawn = [squad[i] for i in np.random.default_rng(0).permutation(len(squad))]
    answerable = [q for q in drawn if q.answerable][: options.questions]
    unanswerable = [q for q in drawn if not q.answerable][: options.questions // 2]
    half = len(answerable) // 2

    encoder = M3Encoder(options.model)
    corpus = load_beir_corpus(options.data / "rag/squad-v2.0-dev/corpus.jsonl")
    folder = Path(tempfile.mkdtemp())
    reader = Reader(encoder, corpus, folder / "squad")
    found = [reader.read(q) for q in answerable]
    taken = [reader.read(q, without=q.gold_ids) for q in answerable]
    threshold = choose(supports(found[:half]), supports(taken[:half]))
    tricky = [reader.read(q) for q in unanswerable]

    english = load_beir(options.data / "retrieval/xquad/mono/en").corpus
    across = Reader(encoder, english, folder / "xquad")
    print(f"model {options.model}, threshold {threshold}, chosen on {half} questions\n")
    print("| questions not used to choose | n | answered | holds the answer | AUROC against answerable |")
    print("|---|---|---|---|---|")
    kept, lost = supports(found[half:]), supports(taken[half:])
    right = np.mean([holds(q, a) for q, a in zip(answerable[half:], found[half:], strict=True)])
    rows = [
        ("SQuAD 2.0, answerable", kept, right, None),
        ("the same, their paragraph taken away", lost, None, auroc(kept, lost)),
        ("SQuAD 2.0, unanswerable (written to look answerable)", supports(tricky), None, auroc(kept, supports(tricky))),
    ]
    for language in ("en", "de", "zh"):
        asked = load_questions(options.data / f"rag/xquad/{language}.jsonl")[:: max(1190 // half, 1)]
        with_it, without_it = (
            supports([across.read(q, without=q.gold_ids if removed else ()) for q in asked])
            for removed in (False, True)
        )
        rows.append((f"XQuAD, questions in {language}, paragraphs in en", with_it, None, None))
        rows.append(("the same, their paragraph taken away", without_it, None, auroc(with_it, without_it)))
    for name, support, correct, area in rows:
        shown = [f"{(support >= threshold).mean():.3f}"]
        shown += ["" if value is None else f"{value:.3f}" for value in (correct, area)]
        print(f"| {name} | {len(support)} | {' | '.join(shown)} |")


def load_beir_corpus(path: Path) -> dict[str, str]:
    """Paragraph texts by id from a corpus.jsonl that stands alone."""
    with path.open(encoding="utf-8") as lines:
        return {row["_id"]: row["text"] for row in map(json.loads, lines)}


if __name__ == "__main__":
    main()
