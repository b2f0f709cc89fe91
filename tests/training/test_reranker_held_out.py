from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from m3rag.reranking.pairs import TextPair
from m3rag.reranking.scorer import Scores
from m3rag.training.data import Example
from m3rag.training.reranker_held_out import OTHERS, candidates, measure_reranker


def test_each_question_has_its_own_passages_and_ten_others_of_its_source(examples: list[Example]) -> None:
    held = examples[:20]
    others = [*examples[20:], *(replace(e, source="fish", negatives=(f"fish {i}",)) for i, e in enumerate(examples))]
    # Known from another line to answer: neither wrong nor among the others.
    others.append(replace(held[0], positives=(held[0].negatives[0], "an answer too")))
    found = candidates(held, others, seed=0)
    assert found == candidates(held, others, seed=0) != candidates(held, others, seed=1)
    pool = {t for e in (*held, *others) if e.source == "birds" for t in (*e.positives, *e.negatives)}
    for i, (example, candidate) in enumerate(zip(held, found, strict=True)):
        own = {*example.positives, *example.negatives[1 if i == 0 else 0 :]}
        assert own < set(candidate.passages) <= pool
        assert len(candidate.passages) == len(set(candidate.passages)) == len(own) + OTHERS
        assert candidate.relevant == set(example.positives)
    assert not {held[0].negatives[0], "an answer too"} & set(found[0].passages)
    assert len({candidate.passages.index(next(iter(candidate.relevant))) for candidate in found}) > 5


def test_a_source_with_few_passages_gives_what_it_has() -> None:
    (found,) = candidates([Example("q", ("a",), ("b", "c"), "s")], [Example("r", ("a",), ("d",), "s")], seed=0)
    assert sorted(found.passages) == ["a", "b", "c", "d"]


def test_the_figure_is_the_mean_over_sources(examples: list[Example]) -> None:
    held = [*examples[:3], replace(examples[3], source="fish")]
    asked = candidates(held, [replace(e, source="fish") for e in examples[:9]], seed=0)
    right = {(candidate.query, text) for candidate in asked for text in candidate.relevant}

    def best_first(pairs: list[TextPair]) -> Scores:
        return np.array([float(pair in right) for pair in pairs], np.float32)

    assert measure_reranker(best_first, asked) == 1  # type: ignore[arg-type]

    def second(pairs: list[TextPair]) -> Scores:
        """Of the fish one wrong passage before the right one."""
        scores = best_first(pairs)
        if pairs[0][0] == examples[3].query:
            scores[int(scores.argmin())] = 2
        return scores

    assert measure_reranker(second, asked) == pytest.approx((1 + 1 / np.log2(3)) / 2)  # type: ignore[arg-type]
