from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, XLMRobertaModel

from m3rag.encoder.encoder import M3Encoder
from m3rag.encoder.late import windows
from m3rag.errors import ConfigurationError, InputError


@pytest.fixture(scope="module")
def tiny(tiny_checkpoint):
    return M3Encoder(str(tiny_checkpoint), device="cpu", colbert_dtype="float32")


@pytest.fixture(scope="module")
def direct(tiny_checkpoint):
    """A forward pass by transformers alone: ids to states, lexical weights and token vectors."""
    model = XLMRobertaModel.from_pretrained(tiny_checkpoint, add_pooling_layer=False).eval()
    heads = {
        name: torch.load(tiny_checkpoint / f"{name}_linear.pt", weights_only=True) for name in ("sparse", "colbert")
    }

    def run(ids):
        with torch.inference_mode():
            states = model(input_ids=torch.tensor([ids])).last_hidden_state[0]
            linear = {n: states @ h["weight"].float().T + h["bias"].float() for n, h in heads.items()}
        return states.numpy(), torch.relu(linear["sparse"])[:, 0].numpy(), linear["colbert"].numpy()

    return run


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def check(output, row, ids, expected_of, unused):
    """One span's representations against the states, weights and vectors of its tokens."""
    states, weights, vectors = expected_of
    assert np.allclose(output.dense[row], unit(states.mean(axis=0)), atol=1e-5)
    assert np.allclose(output.colbert_of(row), unit(vectors), atol=1e-5)
    expected: dict[int, float] = {}
    for token, weight in zip(ids, weights, strict=True):
        if weight > 0 and token not in unused:
            expected[token] = max(expected.get(token, 0.0), float(weight))
    found = output.lexical[[row]]
    assert dict(zip(found.indices.tolist(), found.data.tolist(), strict=True)) == pytest.approx(expected, abs=1e-5)


def thirds(text):
    """Spans that end at blanks: three parts, and one across the middle that overlaps two of them."""
    at = [0, *(text.index(" ", len(text) * i // 3) for i in (1, 2)), len(text)]
    return [*pairwise(at), (at[1] - 20, at[1] + 20)]


@pytest.mark.parametrize("number", [0, 40, 80, 120, 160])
def test_one_window_is_what_transformers_computes(tiny, direct, tiny_checkpoint, multilingual_texts, number):
    text = multilingual_texts[number % len(multilingual_texts)]
    if text.count(" ") < 8:
        text = " ".join(multilingual_texts[:3])
    spans = thirds(text)
    output = tiny.encode_spans(text, spans)
    encoded = AutoTokenizer.from_pretrained(tiny_checkpoint)(text, return_offsets_mapping=True)
    ids = encoded["input_ids"]
    starts = tiny.token_spans(text)[:, 0]
    states, weights, vectors = direct(ids)
    for row, (a, b) in enumerate(spans):
        inside = 1 + np.flatnonzero((starts[:-1] >= a) & (starts[:-1] < b))
        tokens = np.array(ids)[inside].tolist()
        check(output, row, tokens, [a[inside] for a in (states, weights, vectors)], tiny.tokenizer.unused_ids)


def test_a_long_text_is_read_in_windows_with_context_around_each_span(direct, tiny_checkpoint, multilingual_texts):
    encoder = M3Encoder(str(tiny_checkpoint), device="cpu", colbert_dtype="float32", max_length=66)
    text = " ".join(multilingual_texts[:12])
    starts = encoder.tokenizer.token_spans(text, max_length=10**6)[:-1, 0]
    ids = encoder.tokenizer.encode([text], max_length=10**6).ids[0]
    ranges = np.array([(i, min(i + 20, len(starts))) for i in range(0, len(starts), 20)])
    spans = [(int(starts[a]), int(starts[b]) if b < len(starts) else len(text)) for a, b in ranges]
    output = encoder.encode_spans(text, spans)
    found = list(windows(ranges, room=64, total=len(starts)))
    assert len(found) > 10
    for window in found:
        inside = ids[1:-1][window.start : window.end]
        states, weights, vectors = direct([int(ids[0]), *inside.tolist(), int(ids[-1])])
        for row in window.rows:
            own = slice(1 + ranges[row, 0] - window.start, 1 + ranges[row, 1] - window.start)
            tokens = ids[1:-1][ranges[row, 0] : ranges[row, 1]].tolist()
            check(output, row, tokens, [a[own] for a in (states, weights, vectors)], encoder.tokenizer.unused_ids)


def test_prefix_and_specials_have_no_part_in_a_spans_vector():
    mini = M3Encoder("mini", device="cpu", colbert_dtype="float32")
    text = "Ducks swim on the pond. Les canards nagent."
    whole = mini.encode_spans(text, [(0, len(text))])
    plain = mini.encode_documents([text])
    # The ordinary pass has the same tokens and, behind them, the closing special.
    assert np.allclose(whole.colbert_of(0), plain.colbert_of(0)[:-1], atol=1e-5)
    assert np.allclose(whole.lexical.toarray(), plain.lexical.toarray(), atol=1e-5)
    cosine = float(whole.dense[0] @ plain.dense[0])
    assert 0.9 < cosine < 0.99999
    assert not np.allclose(mini.encode_spans(text, [(0, 23)], role="query").dense, whole.dense)


def test_context_is_seen(tiny):
    span = (0, len("They swim."))
    ducks, fish = (tiny.encode_spans(f"They swim. {about} do.", [span]).dense[0] for about in ("Ducks", "Whales"))
    assert not np.allclose(ducks, fish, atol=1e-3)


def test_spans_without_tokens_and_no_spans_at_all(tiny):
    output = tiny.encode_spans("a  b", [(1, 1), (0, 1)])
    assert not output.dense[0].any()
    assert output.offsets.tolist() == [0, 0, 1]
    assert len(tiny.encode_spans("", [(0, 0)])) == 1
    assert len(tiny.encode_spans("text", [])) == 0


@pytest.mark.parametrize(
    ("spans", "said"),
    [([(0, 99)], r"\(0, 99\) is not of the text, which has 9"), ([(3, 1)], "not of the text"), ([(-1, 2)], "not of")],
)
def test_spans_outside_the_text_are_refused(tiny, spans, said):
    with pytest.raises(InputError, match=said):
        tiny.encode_spans("some text", spans)


@pytest.mark.parametrize(
    "spans", [[(0, 1, 2), (3, 4, 5)], [(0, 1), (2,)], [(0, 1.9)], [("0", "2")], (0, 3), [(0, None)], None, [[], []]]
)
def test_what_is_no_pair_of_numbers_is_refused(tiny, spans):
    with pytest.raises(InputError, match="spans must be pairs of whole numbers"):
        tiny.encode_spans("some text", spans)


def test_a_span_longer_than_a_window_is_refused(tiny_checkpoint):
    encoder = M3Encoder(str(tiny_checkpoint), device="cpu", max_length=16)
    with pytest.raises(InputError, match=r"a window of this model 14 beside .* make smaller chunks"):
        encoder.encode_spans("word " * 15, [(0, 75)])


def test_what_has_no_states_here_is_refused(tiny_checkpoint):
    with (
        M3Encoder(str(tiny_checkpoint), device=["cpu", "cpu"]) as encoder,
        pytest.raises(ConfigurationError, match="take one device and backend='torch'"),
    ):
        encoder.encode_spans("text", [(0, 4)])


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 40)), max_size=60), st.integers(40, 120))
def test_every_span_is_taken_once_from_a_window_that_holds_it(pairs, room):
    total = max((a + b for a, b in pairs), default=0)
    ranges = np.array([(a, a + b) for a, b in pairs], np.int64).reshape(-1, 2)
    found = list(windows(ranges, room=room, total=total))
    assert sorted(row for window in found for row in window.rows) == list(range(len(pairs)))
    for window in found:
        assert 0 <= window.start <= window.end <= total
        assert window.end - window.start <= room
        for row in window.rows:
            assert window.start <= ranges[row, 0]
            assert ranges[row, 1] <= window.end
    assert len(found) <= len(pairs)
