"""Products of bytes are near those of floats, whatever the activations are like."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from m3rag.encoder.onnx.builder import GRAPH_FILE, GraphBuilder
from m3rag.encoder.onnx.graph import Array
from m3rag.encoder.onnx.quantize import Int8Linear

TOKENS, INPUTS, OUTPUTS = 40, 96, 48


def product(folder: Path, states: Array, weight: Array, bias: Array) -> npt.NDArray[np.float32]:
    """`states @ weight + bias` by the nodes of `Int8Linear`."""
    import onnxruntime

    linear = Int8Linear()
    with GraphBuilder(folder) as graph:
        graph.input("states", np.float32, ["tokens", INPUTS])
        result = linear.multiply(graph, linear.feed(graph, "states", site="s"), weight, bias, name="result")
        graph.output(result, ["tokens", OUTPUTS])
        graph.write()
    session = onnxruntime.InferenceSession(folder / GRAPH_FILE, providers=["CPUExecutionProvider"])
    found: npt.NDArray[np.float32] = session.run(None, {"states": states})[0]
    return found


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


@pytest.mark.parametrize("kind", ["plain", "one large channel", "one large token", "all above zero", "tiny"])
def test_near_the_float_product(tmp_path: Path, rng: np.random.Generator, kind: str) -> None:
    states = rng.standard_normal((TOKENS, INPUTS)).astype(np.float32)
    if kind == "one large channel":
        states[:, 7] += 20
    elif kind == "one large token":
        states[3] *= 1000
    elif kind == "all above zero":
        states = np.abs(states) + 5
    elif kind == "tiny":
        states *= 1e-7
    weight = rng.standard_normal((INPUTS, OUTPUTS)).astype(np.float32) / 10
    exact = states.astype(np.float64) @ weight
    found = product(tmp_path, states, weight, np.zeros(OUTPUTS, np.float32))
    # Rounding errors are evenly spread: of activations within a 255th of the token's range, of weights
    # within a 127th of the channel's largest.
    steps = (np.maximum(states.max(1), 0) - np.minimum(states.min(1), 0)) / 255
    of_states = steps[:, None] * np.linalg.norm(weight, axis=0) / np.sqrt(12)
    of_weights = np.linalg.norm(states, axis=1)[:, None] * np.abs(weight).max(0) / 127 / np.sqrt(12)
    assert (np.abs(found - exact) <= 6 * np.hypot(of_states, of_weights)).all()


def test_tokens_and_channels_of_zeros_give_the_bias(tmp_path: Path, rng: np.random.Generator) -> None:
    states = rng.standard_normal((TOKENS, INPUTS)).astype(np.float32)
    weight = rng.standard_normal((INPUTS, OUTPUTS)).astype(np.float32)
    bias = rng.standard_normal(OUTPUTS).astype(np.float32)
    states[[0, 9]] = 0
    weight[:, [1, 5]] = 0
    found = product(tmp_path, states, weight, bias)
    assert np.isfinite(found).all()
    assert np.abs(found[[0, 9]] - bias).max() <= 1e-6
    assert np.abs(found[:, [1, 5]] - bias[[1, 5]]).max() <= 1e-6
