"""Spans by any counter: in order, apart, without white space; the estimate never counts too few."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from m3rag.encoder.mini import ensure_mini
from m3rag.encoder.spans import clean, estimated_spans, spans_of, tiktoken_spans
from m3rag.errors import InputError, ModelError

ODD = [
    "",
    " ",
    "\n\n",
    "a",
    " a\u00a0b ",
    "ﬁne ½ Ⅻ",
    "🦆👩‍👩‍👧",
    "e\u0301\u0302",
    "\ud800x",
    "x" * 5000,
    "鸭" * 3000,
    "a\u2028b\r\nc",
    "P\x1fB",
]


@cache
def xlmr() -> Tokenizer:
    return Tokenizer.from_file(str(ensure_mini() / "tokenizer.json"))


@cache
def bytes_and_some_words() -> tiktoken.Encoding:
    """A byte-level vocabulary as OpenAI's are, but for its size."""
    # Each is two earlier ones, as merges are.
    words = [b"Du", b"ck", b"cks", b" s", b"wi", b"wim", b" swim", "鸭".encode()[:2], "鸭".encode()]
    ranks = {bytes([i]): i for i in range(256)} | {word: 256 + i for i, word in enumerate(words)}
    return tiktoken.Encoding("small", pat_str=r"\s?\w+|\s+|[^\s\w]+", mergeable_ranks=ranks, special_tokens={})


@cache
def counter(name: str) -> Callable[[str], np.ndarray]:
    makers = {
        "tokenizers": lambda: spans_of(xlmr()),
        "tiktoken": lambda: spans_of(bytes_and_some_words()),
        "estimate": lambda: estimated_spans,
    }
    return makers[name]()


COUNTERS = ("tokenizers", "tiktoken", "estimate")


def check(name: str, text: str) -> None:
    spans = counter(name)(text)
    assert spans.shape == (len(spans), 2)
    assert spans.dtype == np.int64
    flat = spans.reshape(-1)
    assert not len(flat) or (flat[0] >= 0 and flat[-1] <= len(text))
    assert (np.diff(flat) >= 0).all(), "spans overlap or are out of order"
    for start, end in spans:
        assert text[start:end] == text[start:end].strip()
    if name != "tokenizers":  # XLM-R's normaliser drops control characters
        covered = "".join(text[start:end] for start, end in spans)
        assert "".join(covered.split()) == "".join(text.split())


@pytest.mark.parametrize("name", COUNTERS)
@pytest.mark.parametrize("text", ODD)
def test_odd_texts(name: str, text: str) -> None:
    check(name, text)


@pytest.mark.parametrize("name", COUNTERS)
def test_real_texts(name: str, multilingual_texts: list[str]) -> None:
    for text in [*multilingual_texts, "\n".join(multilingual_texts)]:
        check(name, text)


@settings(max_examples=60, deadline=None)
@given(st.text())
def test_any_text(text: str) -> None:
    for name in COUNTERS:
        check(name, text)


def test_every_token_has_a_span(multilingual_texts: list[str]) -> None:
    for text in multilingual_texts:  # of one line each
        assert len(counter("tokenizers")(text)) == len(xlmr().encode(text, add_special_tokens=False).ids)
        assert len(counter("tiktoken")(text)) == len(bytes_and_some_words().encode_ordinary(text))


def test_the_spans_of_a_byte_level_tokenizer() -> None:
    text = "Ducks swim\n鸭鸡"
    found = [text[start:end] for start, end in tiktoken_spans(bytes_and_some_words(), text)]
    assert found == ["Du", "cks", "swim", "", "鸭", "", "鸡"]  # 鸡 is two tokens


def test_the_estimate_counts_too_many_tokens_rather_than_too_few(
    multilingual_texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import llama_index.core

    # LlamaIndex brings OpenAI's vocabulary along, which tiktoken would fetch.
    packaged = Path(llama_index.core.__file__).parent / "_static" / "tiktoken_cache"
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(packaged))
    cl100k = tiktoken.get_encoding("cl100k_base")
    for start in range(0, len(multilingual_texts), 33):
        texts = multilingual_texts[start : start + 33]  # of one language
        estimate = sum(len(estimated_spans(text)) for text in texts)
        for count in (spans_of(cl100k), counter("tokenizers")):
            exact = sum(len(count(text)) for text in texts)
            assert exact <= estimate <= 3 * exact


@pytest.fixture
def words() -> Tokenizer:
    """A word a token, whichever it is: the real vocabulary takes a second to parse."""
    tokenizer = Tokenizer(WordLevel({"<unk>": 0}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    return tokenizer


def test_what_counts_may_be_given_in_any_form(tmp_path: Path, words: Tokenizer) -> None:
    words.save(str(tmp_path / "tokenizer.json"))
    for given_as in (tmp_path, str(tmp_path / "tokenizer.json"), words):
        assert spans_of(given_as)("Enten schwimmen.").tolist() == [[0, 5], [6, 15], [15, 16]]
    assert spans_of(None) is estimated_spans
    assert len(spans_of(bytes_and_some_words())("Ducks swim")) == 3
    (tmp_path / "broken.json").write_text("{}")
    for path in (tmp_path / "broken.json", tmp_path / "absent.json"):
        with pytest.raises(ModelError, match=rf"{path.name} is no tokenizer\.json"):
            spans_of(path)
    with pytest.raises(InputError, match="tokenizer is a int"):
        spans_of(3)  # type: ignore[arg-type]


def test_a_tokenizer_that_cuts_still_counts_all(words: Tokenizer) -> None:
    words.enable_truncation(3)
    words.enable_padding(length=9)
    count = spans_of(words)
    assert len(count("Enten schwimmen auf dem Teich")) == 5
    assert (words.truncation["max_length"], words.padding["length"]) == (3, 9)


def test_half_of_a_pair_is_replaced_by_one_character() -> None:
    assert clean("a\ud800\udc00b") == "a\ufffd\ufffdb"
