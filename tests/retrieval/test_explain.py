"""The tokens shown for a hit account for its whole lexical score."""

from __future__ import annotations

import numpy as np
import pytest

from m3rag.errors import InputError
from m3rag.retrieval import top_tokens
from m3rag.scoring import lexical_scores
from m3rag.testing import HashEncoder
from m3rag.testing.data import random_output


def test_contributions_sum_to_the_lexical_score() -> None:
    output = random_output(np.random.default_rng(3), 40, max_tokens=60)
    scores = lexical_scores(output[:10], output)
    shared = 0
    for q in range(10):
        for p in range(40):
            matches = top_tokens(output[q].lexical, output[p].lexical, str)
            shared += len(matches)
            assert sum(match.contribution for match in matches) == pytest.approx(float(scores[q, p]), abs=1e-6)
            assert [m.contribution for m in matches] == sorted((m.contribution for m in matches), reverse=True)
            assert top_tokens(output[q].lexical, output[p].lexical, str, limit=2) == matches[:2]
    assert shared > 400


def test_tokens_are_readable_and_only_those_shared() -> None:
    encoder = HashEncoder()
    query = encoder.encode_queries(["Do ducks swim in winter?"])
    passage = encoder.encode_documents(["In summer ducks fly."])
    assert {token for token, _ in top_tokens(query.lexical, passage.lexical, encoder.token)} == {"ducks", "in"}


def test_rows_that_cannot_be_compared_are_refused() -> None:
    output = random_output(np.random.default_rng(3), 2)
    other = HashEncoder().encode_queries(["ducks"])
    for query, passage in ((output, output), (output[0], other), (output[0], output)):
        with pytest.raises(InputError, match="one row"):
            top_tokens(query.lexical, passage.lexical, str)
