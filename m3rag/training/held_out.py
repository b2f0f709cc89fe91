"""What a run has learned so far: nDCG@10 of each leg on questions kept out of training."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence

import torch

from m3rag.evaluation.metrics import aggregate
from m3rag.training.data import Example
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
        ranked = sorted(queries, key=lambda query: (hashlib.sha256(query.encode("utf-8", "replace")).digest(), query))
        held |= {(source, query) for query in ranked[: min(per_source, len(ranked) // 2)]}
    learn = [e for e in examples if (e.source, e.query) not in held]
    return learn, [e for e in examples if (e.source, e.query) in held]


@torch.no_grad()
def measure(encoding: Encoding, examples: Sequence[Example], numbers: dict[str, int], first: int) -> dict[str, float]:
    """The quality of each leg and of all three among the passages of the same source.

    Args:
        encoding: Of the model; question `first + i` is that of `examples[i]`.
        examples: The held-out ones.
        numbers: Of each passage text.
        first: The number of the first held-out question.

    Returns:
        `{"dense": .., "lexical": .., "colbert": .., "all": ..}`, nDCG@10 in [0, 1], the mean over sources.
    """
    by_source: dict[str, list[int]] = defaultdict(list)
    for i, example in enumerate(examples):
        by_source[example.source].append(i)
    tables = []
    for _, members in sorted(by_source.items()):
        texts = list(dict.fromkeys(t for i in members for t in (*examples[i].positives, *examples[i].negatives)))
        passages = [numbers[text] for text in texts]
        qrels = {str(i): {str(numbers[text]): 1 for text in examples[i].positives} for i in members}
        tables.append(_ndcg(encoding, [first + i for i in members], passages, qrels, first))
    return {leg: sum(table[leg] for table in tables) / len(tables) for leg in tables[0]}


def _ndcg(
    encoding: Encoding, queries: list[int], passages: list[int], qrels: dict[str, dict[str, int]], first: int
) -> dict[str, float]:
    asked = [encoding.queries(queries[i : i + BLOCK]) for i in range(0, len(queries), BLOCK)]
    columns = [_scores(asked, encoding.passages(passages[i : i + BLOCK])) for i in range(0, len(passages), BLOCK)]
    scores = LegScores(*(torch.cat(parts, 1) for parts in zip(*columns, strict=True)))
    found = {}
    for name, matrix in (*zip(("dense", "lexical", "colbert"), scores, strict=True), ("all", scores.ensemble())):
        best = matrix.topk(min(DEPTH, len(passages)), dim=1)
        run = {
            str(query - first): {str(passages[int(i)]): float(value) for i, value in zip(at, values, strict=True)}
            for query, at, values in zip(queries, best.indices, best.values, strict=True)
        }
        found[name] = aggregate(run, qrels, [METRIC])[METRIC]
    return found


def _scores(queries: Sequence[Texts], passages: Texts) -> LegScores:
    blocks = [leg_scores(block, passages) for block in queries]
    return LegScores(*(torch.cat(parts).cpu() for parts in zip(*blocks, strict=True)))
