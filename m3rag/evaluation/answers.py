"""Exact match and F1 of short answers, as in SQuAD, for many languages.

The official SQuAD 2.0 script, extended as in MLQA's (Lewis et al. 2020): punctuation is that of all
of Unicode, one text is equal to itself in another normal form (NFKC: decomposed accents, full-width
digits), articles are those of the language, and Chinese and Japanese, written without spaces, are
compared character by character. So is Korean, whose particles join the word before them (as in
KorQuAD's script).
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

ARTICLES = {
    "en": "a|an|the",
    "de": "ein|eine|einen|einem|eines|einer|der|die|das|den|dem|des",
    "es": "un|una|unos|unas|el|la|los|las",
}

# Han with its extensions, kana, bopomofo, Hangul: one token a character.
CJK = re.compile("([\u3005\u3007\u3040-\u30ff\u3100-\u312f\u31f0-\u31ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff"
                 "\U00020000-\U000323af])")  # fmt: skip


def normalize(text: str, *, lang: str = "en") -> str:
    """Lower case, without punctuation and articles, with single spaces.

    Args:
        text: An answer.
        lang: Whose articles to remove (en, de, es, be it of a region as en-GB); other languages keep every word.
    """
    lang = lang.lower().replace("_", "-").partition("-")[0]
    text = unicodedata.normalize("NFKC", text).lower()
    text = "".join(character for character in text if not _is_punctuation(character))
    if lang in ARTICLES:
        text = re.sub(rf"\b({ARTICLES[lang]})\b", " ", text)
    return " ".join(text.split())


def tokens(text: str, *, lang: str = "en") -> list[str]:
    """What F1 counts: words of the normalised text, and single characters of CJK."""
    return CJK.sub(r" \1 ", normalize(text, lang=lang)).split()


def exact_match(prediction: str, answers: Sequence[str], *, lang: str = "en") -> float:
    """1 if the prediction equals an answer after normalisation, else 0.

    Args:
        prediction: What was answered, "" for a refusal.
        answers: The right answers; none means that refusing is right.
        lang: Whose articles to remove.
    """
    prediction = normalize(prediction, lang=lang)
    return float(prediction in {normalize(answer, lang=lang) for answer in _gold(answers, lang=lang)})


def f1(prediction: str, answers: Sequence[str], *, lang: str = "en") -> float:
    """The best overlap of tokens with an answer: harmonic mean of precision and recall, [0, 1].

    Arguments as in `exact_match`. Where either side has no tokens, 1 if both have none, else 0.
    """
    predicted = tokens(prediction, lang=lang)
    return max(_overlap(predicted, tokens(answer, lang=lang)) for answer in _gold(answers, lang=lang))


def _gold(answers: Sequence[str], *, lang: str) -> list[str]:
    """As the SQuAD script: answers that normalise to nothing do not count; without any, "" is right."""
    return [answer for answer in answers if normalize(answer, lang=lang)] or [""]


def _overlap(predicted: list[str], gold: list[str]) -> float:
    if not predicted or not gold:
        return float(predicted == gold)
    common = (Counter(predicted) & Counter(gold)).total()
    return 2 * common / (len(predicted) + len(gold))


@lru_cache(maxsize=4096)
def _is_punctuation(character: str) -> bool:
    # The SQuAD script removes string.punctuation, which holds symbols such as $ and + too.
    return character in string.punctuation or unicodedata.category(character).startswith("P")
