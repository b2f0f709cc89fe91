"""Exact match and F1 against the cases of the official scripts."""

from __future__ import annotations

import re
import string
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3rag.evaluation.answers import exact_match, f1, normalize, tokens


def squad_normalize(text: str) -> str:
    """`normalize_answer` of the SQuAD 2.0 evaluation script (Rajpurkar et al. 2018)."""
    text = "".join(character for character in text.lower() if character not in set(string.punctuation))
    return " ".join(re.sub(re.compile(r"\b(a|an|the)\b", re.UNICODE), " ", text).split())


def squad_f1(gold: str, predicted: str) -> float:
    """`compute_f1` of the same script."""
    gold_tokens, predicted_tokens = squad_normalize(gold).split(), squad_normalize(predicted).split()
    common = sum((Counter(gold_tokens) & Counter(predicted_tokens)).values())
    if not gold_tokens or not predicted_tokens:
        return float(gold_tokens == predicted_tokens)
    if common == 0:
        return 0.0
    precision, recall = common / len(predicted_tokens), common / len(gold_tokens)
    return 2 * precision * recall / (precision + recall)


texts = st.lists(
    st.sampled_from(["The", "a", "an", "duck", "Ducks", "$12", "3.5", "can't", "U.S.", "-", "the-duck", "\n"]),
    max_size=6,
).map(" ".join)


@given(texts, texts)
def test_english_is_scored_as_by_the_squad_script(prediction: str, answer: str) -> None:
    assert normalize(prediction) == squad_normalize(prediction)
    assert f1(prediction, [answer]) == pytest.approx(squad_f1(answer, prediction), abs=1e-12)
    assert exact_match(prediction, [answer]) == float(squad_normalize(prediction) == squad_normalize(answer))


@pytest.mark.parametrize(
    ("lang", "prediction", "answer"),
    [
        ("en", "The  Denver Broncos!", "denver broncos"),
        ("en", "“nearly $12”", "nearly 12"),
        ("de", "der Erste Weltkrieg", "Erste Weltkrieg."),
        ("es", "¿Los Ángeles?", "ángeles"),
        ("ru", "«Война и мир»", "война и мир"),
        ("ar", "ما هذا؟", "ما هذا"),
        ("zh", "《红楼梦》。", "红楼梦"),
        ("ja", "２０１３年", "2013年"),
        ("de", "Mu\u0308nchen", "München"),
        ("ko", "\u1112\u1161\u11ab\u1100\u116e\u11a8", "한국"),
    ],
)
def test_what_is_the_same_after_normalisation(lang: str, prediction: str, answer: str) -> None:
    assert exact_match(prediction, [answer], lang=lang) == 1
    assert f1(prediction, ["other", answer], lang=lang) == 1


def test_articles_are_those_of_the_language() -> None:
    assert normalize("the die las a", lang="de") == "the las a"
    assert normalize("the die las a", lang="fr") == "the die las a"
    assert exact_match("las casas", ["casas"], lang="en") == 0


def test_cjk_is_compared_by_character() -> None:
    assert tokens("136 次", lang="zh") == tokens("136次", lang="zh") == ["136", "次"]
    assert tokens("東京タワー is ソウル・서울", lang="ja") == [*"東京タワー", "is", *"ソウル서울"]
    assert f1("北京市", ["北京"], lang="zh") == pytest.approx(0.8)
    assert f1("北京", ["上海"], lang="zh") == 0
    assert tokens("\U00020000\U0002a6d6", lang="zh") == ["\U00020000", "\U0002a6d6"]


def test_the_best_answer_counts() -> None:
    assert f1("October 1973", ["1973", "October 1973", "x"]) == 1
    assert f1("in October", ["October 1973", "1973"]) == pytest.approx(0.5)


def test_refusing_is_right_only_where_there_is_no_answer() -> None:
    assert (exact_match("", []), f1("", [])) == (1, 1)
    assert (exact_match("ducks", []), f1("ducks", [])) == (0, 0)
    assert (exact_match("", ["ducks"]), f1("", ["ducks"])) == (0, 0)
    # As the SQuAD script: an answer that normalises to nothing is no answer.
    assert (exact_match("", ["the"]), f1("", ["..."])) == (1, 1)
    assert exact_match("", ["the", "ducks"]) == 0


@pytest.mark.parametrize(
    ("lang", "text"), [("en-GB", "the cat"), ("EN", "a cat"), ("de_AT", "die cat"), ("es-419", "la cat")]
)
def test_articles_are_those_of_a_language_in_every_region(lang: str, text: str) -> None:
    assert exact_match(text, ["cat"], lang=lang) == 1
    assert f1(text, ["cat"], lang=lang) == 1
    assert exact_match(text, ["cat"], lang="fr-CA") == 0
