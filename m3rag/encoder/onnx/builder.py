"""An ONNX graph put together node by node, its weights in a file of their own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from m3rag.encoder.onnx.install import require

if TYPE_CHECKING:
    import onnx

MICROSOFT = "com.microsoft"
"""The domain of ONNX Runtime's own operators."""

OPSET, MICROSOFT_OPSET, IR_VERSION = 20, 1, 10
"""What ONNX Runtime 1.22, the oldest one allowed, understands."""

GRAPH_FILE, WEIGHT_FILE = "model.onnx", "model.onnx.data"

PADDING_KEY = "padding"
"""In the graph's metadata: the id of the token that positions do not count; absent where they count all."""

INLINE_BYTES = 1024
ALIGNMENT = 4096
"""Weights start on a page of memory, so that ONNX Runtime can map the file instead of reading it."""


class GraphBuilder:
    """Collects nodes; writes each weight to disk as it comes, since a graph file may hold 2 GB at most.

    Args:
        folder: Gets `model.onnx` and `model.onnx.data`.
    """

    def __init__(self, folder: Path) -> None:
        self._onnx = require("onnx")
        self._folder = folder
        self._file = (folder / WEIGHT_FILE).open("wb")
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._notes: dict[str, str] = {}

    def __enter__(self) -> GraphBuilder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def input(self, name: str, dtype: type[np.generic], shape: Sequence[int | str]) -> str:
        """Declare an input; a dimension given by a word may have any size."""
        self._inputs.append(self._value(name, dtype, shape))
        return name

    def output(self, name: str, shape: Sequence[int | str]) -> None:
        """Declare a node's result a float32 output."""
        self._outputs.append(self._value(name, np.float32, shape))

    def _value(self, name: str, dtype: type[np.generic], shape: Sequence[int | str]) -> onnx.ValueInfoProto:
        kind = self._onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        value: onnx.ValueInfoProto = self._onnx.helper.make_tensor_value_info(name, kind, list(shape))
        return value

    def constant(self, name: str, value: npt.ArrayLike) -> str:
        """A weight; a name is written once only."""
        if name in self._constants:
            return name
        array = np.ascontiguousarray(value)
        tensor = self._onnx.TensorProto(
            name=name, dims=np.shape(value), data_type=self._onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
        )
        if array.nbytes <= INLINE_BYTES:
            tensor.raw_data = array.tobytes()
        else:
            self._file.seek(-(-self._file.tell() // ALIGNMENT) * ALIGNMENT)
            tensor.data_location = self._onnx.TensorProto.EXTERNAL
            place = {"location": WEIGHT_FILE, "offset": self._file.tell(), "length": array.nbytes}
            for key, entry in place.items():
                tensor.external_data.add(key=key, value=str(entry))
            array.tofile(self._file)
        self._constants[name] = tensor
        return name

    def node(self, operator: str, *inputs: str, name: str, domain: str = "", **attributes: Any) -> str:
        """Add a node with one result, and give the result's name back."""
        made = self._onnx.helper.make_node(operator, list(inputs), [name], name=name, domain=domain, **attributes)
        self._nodes.append(made)
        return name

    def note(self, key: str, value: str) -> None:
        """Put something into the graph's metadata, for whoever runs it."""
        self._notes[key] = value

    def write(self) -> None:
        """Write the graph, after the last node.

        Raises:
            OSError: If the disk is full, for one.
        """
        self._file.close()
        helper = self._onnx.helper
        graph = helper.make_graph(self._nodes, "m3", self._inputs, self._outputs, list(self._constants.values()))
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, MICROSOFT_OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="m3rag")
        helper.set_model_props(model, self._notes)
        (self._folder / GRAPH_FILE).write_bytes(model.SerializeToString())
