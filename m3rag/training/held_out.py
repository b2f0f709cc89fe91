"""What a run has learned so far: nDCG@10 of each leg on questions kept out of training."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Sequence

import torch

from m3rag.evaluation.metrics import aggregate, as_ranked
from m3rag.training.data import Example, known_positives
from m3rag.training.encoding import Encoding
from m3rag.training.loss import LegScores
from m3rag.training.representation import Texts, leg_scores

METRIC = "ndcg@10"
BLOCK = 64
"""Questions, and passages, scored at a time."""

DEPTH = 10


def split_held_out(examples: Sequence[Example], *, per_source: int) -> tuple[list[Example], list[Example]]:
    """Part examples into those to learn from and those to measure on.

    Which are kept out follows from a hash of the question, and so does not change when examples are added
    or another draw is made of a larger share. Examples of one question stay together, and at most half of
    a source is kept out.

    Args:
        examples: All.
        per_source: Questions of each source to keep out; 0 for none.

    Returns:
        The two parts, each in the order given.
    """
    by_source: dict[str, set[str]] = defaultdict(set)
    for example in examples:
        by_source[example.source].add(example.query)
    held: set[tuple[str, str]] = set()
    for source, queries in by_source.items():
        ranked = sorted(queries, key=_digest)
        held |= {(source, query) for query in ranked[: min(per_source, len(ranked) // 2)]}
    learn = [e for e in examples if (e.source, e.query) not in held]
    return learn, [e for e in examples if (e.source, e.query) in held]


@torch.no_grad()
def measure(encoding: Encoding, examples: Sequence[Example], numbers: dict[str, int], first: int) -> dict[str, float]:
    """The quality of each leg and of all three among the passages of the same source.

    A question counts once, however many rows it has. As in a search, the lexical leg finds only passages that
    share a token with it. Equal scores are in an order that has nothing to do with what answers.

    Args:
        encoding: Of the model; question `first + i` is that of `examples[i]`.
        examples: The held-out ones.
        numbers: Of each passage text.
        first: The number of the first held-out question.

    Returns:
        `{"dense": .., "lexical": .., "colbert": .., "all": ..}`, nDCG@10 in [0, 1], the mean over sources.
    """
    known = known_positives(examples)
    by_source: dict[str, dict[str, int]] = defaultdict(dict)
    texts: dict[str, set[str]] = defaultdict(set)
    for i, example in enumerate(examples):
        by_source[example.source].setdefault(example.query, i)
        texts[example.source].update((*example.positives, *example.negatives))
    tables = []
    for source, rows in sorted(by_source.items()):
        passages = [numbers[text] for text in sorted(texts[source], key=_digest)]
        qrels = {str(i): {str(numbers[text]): 1 for text in known[source, query]} for query, i in rows.items()}
        tables.append(_ndcg(encoding, [first + i for i in rows.values()], passages, qrels, first))
    return {leg: sum(table[leg] for table in tables) / len(tables) for leg in tables[0]}


def _ndcg(
    encoding: Encoding, queries: list[int], passages: list[int], qrels: dict[str, dict[str, int]], first: int
) -> dict[str, float]:
    asked = [encoding.queries(queries[i : i + BLOCK]) for i in range(0, len(queries), BLOCK)]
    columns = [_scores(asked, encoding.passages(passages[i : i + BLOCK])) for i in range(0, len(passages), BLOCK)]
    scores = LegScores(*(torch.cat(parts, 1) for parts in zip(*columns, strict=True)))
    found = {}
    for name, matrix in (*zip(("dense", "lexical", "colbert"), scores, strict=True), ("all", scores.ensemble())):
        least = 0.0 if name == "lexical" else -math.inf
        best = matrix.sort(dim=1, descending=True, stable=True)
        rows = zip(queries, best.indices[:, :DEPTH].tolist(), best.values[:, :DEPTH].tolist(), strict=True)
        run = {
            str(query - first): as_ranked(
                (str(passages[i]), value) for i, value in zip(at, values, strict=True) if value > least
            )
            for query, at, values in rows
        }
        found[name] = aggregate(run, qrels, [METRIC])[METRIC]
    return found


def _digest(text: str) -> tuple[bytes, str]:
    """Puts texts in an order of chance, the same everywhere."""
    return hashlib.sha256(text.encode("utf-8", "replace")).digest(), text


def _scores(queries: Sequence[Texts], passages: Texts) -> LegScores:
    blocks = [leg_scores(block, passages) for block in queries]
    return LegScores(*(torch.cat(parts).cpu() for parts in zip(*blocks, strict=True)))
