"""The same network for ONNX Runtime: one graph of backbone and heads, in float32 or with int8 layers."""

FORMAT = "2"
"""Raised whenever an export of the same checkpoint would hold another graph."""
