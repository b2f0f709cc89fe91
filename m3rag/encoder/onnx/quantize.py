"""Products in int8: weights by output channel, activations by token, both found without calibration texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from m3rag.encoder.onnx.builder import MICROSOFT, GraphBuilder
from m3rag.encoder.onnx.graph import Array

STEPS = 255
"""A token's activations, from its least to its largest, are spread over so many steps of a byte."""

MIDDLE = 128
"""Subtracted from each byte inside the product, so that its sums stay small."""


class Int8Linear:
    """Multiplies bytes.

    A token `x` becomes bytes `q = x / scale + zero`, with a scale and a zero of its own: the states of
    these models have a few large values, of one sign and not in every token, and one range for all
    tokens would leave the others few steps. The product is put right by
    `x @ w = scale * ((q - 128) @ w + (128 - zero) * sum(w))`, whose second term is a product of rank one.

    Args:
        divisors: `(in,)` what the channels of some sites are divided by first, see `m3rag.encoder.onnx.smooth`.
    """

    def __init__(self, divisors: Mapping[str, Array] | None = None) -> None:
        self._divisors = divisors or {}

    def feed(self, graph: GraphBuilder, states: str, *, site: str) -> str:
        """States as bytes, with each token's scale and correction."""

        def number(name: str, value: float) -> str:
            return graph.constant(name, np.array(value, np.float32))

        def node(operator: str, *inputs: str, name: str, **attributes: Any) -> str:
            return graph.node(operator, *inputs, name=f"{site}.{name}", **attributes)

        if site in self._divisors:
            states = node("Mul", states, graph.constant(f"{site}.even", 1 / self._divisors[site]), name="evened")
        last = graph.constant("last_axis", np.array([-1], np.int64))
        # Zero is in the range, so that its byte is one from 0 to 255; a token of zeros has some scale.
        nothing = number("zero", 0)
        high = node("Max", node("ReduceMax", states, last, name="max"), nothing, name="high")
        low = node("Min", node("ReduceMin", states, last, name="min"), nothing, name="low")
        step = node("Mul", node("Sub", high, low, name="range"), number("step", 1 / STEPS), name="step")
        scale = node("Max", step, number("tiny", 1e-12), name="scale")  # (tokens, 1)
        zero = node("Round", node("Div", node("Neg", low, name="below"), scale, name="at"), name="zero")
        rows = node("Squeeze", scale, last, name="scale.rows")
        zeros = node("Squeeze", node("Cast", zero, name="zero.bytes", to=2), last, name="zero.rows")
        node("QuantizeLinear", states, rows, zeros, name="bytes", axis=0)
        shift = node("Mul", node("Sub", number("middle", MIDDLE), zero, name="offset"), scale, name="shift")
        ones = node("Div", scale, scale, name="ones")
        node("Concat", shift, ones, name="correction", axis=1)  # (tokens, 2)
        return site

    def multiply(self, graph: GraphBuilder, fed: str, weight: Array, bias: Array, *, name: str) -> str:
        """The product of bytes, its correction and the bias."""
        if fed in self._divisors:
            weight = weight * self._divisors[fed][:, None]
        largest = np.abs(weight).max(axis=0)
        scales = np.where(largest > 0, largest / 127, 1).astype(np.float32)  # (out,)
        quantized = np.rint(weight / scales).astype(np.int8)
        product = graph.node(
            "MatMulIntegerToFloat",
            f"{fed}.bytes",
            graph.constant(f"{name}.weight", quantized),
            graph.constant("one", np.array(1, np.float32)),
            graph.constant(f"{name}.scales", scales),
            graph.constant("middle_byte", np.array(MIDDLE, np.uint8)),
            name=f"{name}.product",
            domain=MICROSOFT,
        )
        scaled = graph.node("Mul", product, f"{fed}.scale", name=f"{name}.scaled")
        sums = quantized.sum(axis=0, dtype=np.int64) * scales
        rows = np.stack([sums, bias]).astype(np.float32)  # (2, out)
        return graph.node("Gemm", f"{fed}.correction", graph.constant(f"{name}.sums", rows), scaled, name=name)
