from __future__ import annotations

import doctest
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from m3rag.encoder import explain
from m3rag.encoder.encoder import M3Encoder
from m3rag.encoder.explain import TokenAlignment, TokenWeight, colbert_alignment, token_weights
from m3rag.errors import ConfigurationError, InputError
from m3rag.output import M3Output
from m3rag.scoring import colbert_scores
from m3rag.testing import HashEncoder

ODD = [
    "",
    " \n\t ",
    "🦆",
    "ﬁne ﬂuﬀy ducks ½",
    "e\u0301 \ud800 \x00",
    "鸭子在池塘里游泳。",
    "duck duck, Duck DUCK duck. " * 9,
]
PREFIXES = {"query_instruction": "query: ", "document_instruction": "passage: "}


@pytest.fixture(scope="module", params=[{}, PREFIXES, {"mcls": True}], ids=["plain", "prefixes", "mcls"])
def encoder(request: pytest.FixtureRequest, tiny_checkpoint: Path) -> M3Encoder:
    return M3Encoder(str(tiny_checkpoint), device="cpu", max_length=40, **request.param)


@pytest.fixture(scope="module")
def texts(multilingual_texts: list[str]) -> list[str]:
    return [*ODD, *multilingual_texts[::20]]


def output(encoder: M3Encoder, text: str, role: str) -> M3Output:
    return (encoder.encode_queries if role == "query" else encoder.encode_documents)([text])


@pytest.mark.parametrize("role", ["query", "document"])
def test_the_largest_weight_of_each_token_is_its_lexical_weight(
    encoder: M3Encoder, texts: list[str], role: Any
) -> None:
    positions = repeats = 0
    for text in texts:
        largest: dict[str, float] = {}
        weights = token_weights(encoder, text, role=role)
        for found in weights:
            largest[found.token] = max(largest.get(found.token, 0.0), found.weight)
        [lexical] = output(encoder, text, role).lexical_dicts()
        expected = {encoder.token(int(i)): weight for i, weight in lexical.items()}
        counted = {token: weight for token, weight in largest.items() if weight > 0}
        assert counted.keys() == expected.keys()
        assert np.allclose([counted[token] for token in expected], list(expected.values()), atol=1e-5)
        positions += len(weights)
        repeats += len(weights) - len(largest)
    assert positions > 200
    assert repeats > 30  # without them the test would not tell a maximum from any other choice


@pytest.mark.parametrize("role", ["query", "document"])
def test_weights_are_in_the_order_of_the_text_and_their_spans_fit(
    encoder: M3Encoder, texts: list[str], role: Any
) -> None:
    for text in texts:
        weights = token_weights(encoder, text, role=role)
        starts = [weight.start for weight in weights]
        assert starts == sorted(starts)
        assert all(0 <= weight.start <= weight.end <= len(text) for weight in weights)
        assert all(weight.weight >= 0 for weight in weights)
        assert not {weight.token for weight in weights} & {"<s>", "</s>", "<unk>", "<pad>", "query", "passage"}
    plain = "Ducks swim on ponds."
    assert "".join(weight.token for weight in token_weights(encoder, plain, role=role)) == "▁Ducks▁swim▁on▁pond" + "s."
    for weight in token_weights(encoder, plain, role=role):
        assert plain[weight.start : weight.end] == weight.token.removeprefix("▁")


@pytest.mark.parametrize(
    ("text", "spanned"),
    [
        ("Un cafe\u0301.", ["Un", "cafe\u0301", "."]),
        ("Zu\u0308rich e\u0301te\u0301", ["Zu\u0308rich", "e\u0301te\u0301"]),
        ("e\u0301", ["e\u0301"]),
        ("\u110b\u1169\u1105\u1175 \u1100\u1161\u11a8", ["\u110b\u1169", "\u1105\u1175", "\u1100\u1161\u11a8"]),
        ("\uff76\uff9e\uff77\uff9e", ["\uff76\uff9e", "\uff76\uff9e", "\uff77\uff9e"]),
        ("\u0301abc", ["\u0301", "ab", "c"]),
        ("\u05e9\u05b8\u05c1", ["\u05e9", "\u05b8", "\u05c1"]),  # points that are tokens of their own
    ],
)
def test_spans_hold_the_marks_of_their_letters(encoder: M3Encoder, text: str, spanned: list[str]) -> None:
    for role in ("query", "document"):
        spans = encoder.token_spans(text, role=role)  # type: ignore[arg-type]
        assert [text[start:end] for start, end in spans] == [*spanned, ""]


def test_a_point_whose_token_was_cut_is_in_no_span(tiny_checkpoint: Path) -> None:
    short = M3Encoder(str(tiny_checkpoint), device="cpu", max_length=3)
    assert short.token_spans("\u05e9\u05b8\u05c1").tolist() == [[0, 1], [0, 0]]


def test_repeated_tokens_have_the_weights_of_their_places(encoder: M3Encoder) -> None:
    ducks = [weight for weight in token_weights(encoder, "duck duck duck") if weight.token == "▁du"]
    assert [(weight.start, weight.end) for weight in ducks] == [(0, 2), (5, 7), (10, 12)]
    assert len({weight.weight for weight in ducks}) > 1


def test_a_text_without_tokens_has_no_weights(encoder: M3Encoder) -> None:
    assert token_weights(encoder, "") == []


def test_the_mean_similarity_is_the_colbert_score(encoder: M3Encoder, texts: list[str]) -> None:
    for query, passage in zip(texts, reversed(texts), strict=True):
        found = colbert_alignment(encoder, query, passage)
        expected = colbert_scores(encoder.encode_queries([query]), encoder.encode_documents([passage]))
        assert np.isclose(np.mean([match.similarity for match in found]), expected[0, 0], atol=1e-5)


def test_each_query_token_has_its_best_passage_token(encoder: M3Encoder) -> None:
    query, passage = "Where do ducks swim?", "On ponds, as a rule, ducks swim."
    found = colbert_alignment(encoder, query, passage)
    queries, passages = encoder.encode_queries([query]).colbert, encoder.encode_documents([passage]).colbert
    spans = encoder.token_spans(passage).tolist()
    assert len(found) == len(queries)
    for match, vector in zip(found, queries.astype(np.float32), strict=True):
        similarities = [float(vector @ other) for other in passages.astype(np.float32)]
        best = int(np.argmax(similarities))
        assert [match.passage_start, match.passage_end] == spans[best]
        assert match.similarity == pytest.approx(similarities[best], abs=1e-6)
        assert match.passage_special == (best == len(spans) - 1)
    for match in found[:-1]:
        assert query[match.query_start : match.query_end] == match.query_token.removeprefix("▁")
        assert not match.query_special
    for match in found:
        if not match.passage_special:
            assert passage[match.passage_start : match.passage_end] == match.passage_token.removeprefix("▁")


def test_the_closing_token_is_marked_and_has_no_characters(encoder: M3Encoder) -> None:
    closing = colbert_alignment(encoder, "ducks", "")[-1]
    assert (closing.query_token, closing.query_start, closing.query_end) == ("</s>", 0, 0)
    assert (closing.passage_token, closing.passage_start, closing.passage_end) == ("</s>", 0, 0)
    assert closing.query_special
    assert closing.passage_special


def test_explanations_print_tidily() -> None:
    weight = TokenWeight("▁swim", 6, 10, 0.31467)
    assert str(weight) == "▁swim [6:10] 0.3147"
    assert repr([weight]) == "[<TokenWeight ▁swim [6:10] 0.3147>]"
    match = TokenAlignment("▁essen", 4, 9, "▁eat", 6, 9, 0.64824)
    assert str(match) == "▁essen [4:9] -> ▁eat [6:9] 0.6482"
    assert repr(match) == "<TokenAlignment ▁essen [4:9] -> ▁eat [6:9] 0.6482>"


def test_bad_input_is_named(encoder: M3Encoder) -> None:
    with pytest.raises(InputError, match="token_weights explains single texts, got a list"):
        token_weights(encoder, ["ducks"])  # type: ignore[arg-type]
    with pytest.raises(InputError, match="colbert_alignment explains single texts, got a NoneType"):
        colbert_alignment(encoder, "ducks", None)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="role is 'passage', must be query or document"):
        token_weights(encoder, "ducks", role="passage")  # type: ignore[arg-type]


def test_a_model_without_the_leg_is_refused() -> None:
    dense_only: Any = HashEncoder(vocab_size=0, colbert_dim=0)
    with pytest.raises(ConfigurationError, match="token_weights needs the leg lexical"):
        token_weights(dense_only, "ducks")
    with pytest.raises(ConfigurationError, match="colbert_alignment needs the leg colbert"):
        colbert_alignment(dense_only, "ducks", "swim")


def test_the_examples_run() -> None:
    result = doctest.testmod(explain)
    assert result.attempted > 0
    assert result.failed == 0
