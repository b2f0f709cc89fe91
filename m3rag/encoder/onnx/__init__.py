"""The same network for ONNX Runtime: one graph of backbone and heads, in float32 or with int8 layers."""
