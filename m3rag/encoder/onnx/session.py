"""An exported network in ONNX Runtime: packed batches in, representations out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from m3rag.encoder.batching import Batch, Rows, token_numbers
from m3rag.encoder.model import Representations
from m3rag.encoder.onnx.builder import GRAPH_FILE, PADDING_KEY
from m3rag.encoder.onnx.install import require
from m3rag.errors import ConfigurationError, ModelError

PADDING = 1.25
"""Most slots of attention's padded view for each real token; a batch of unlike texts is cut up to keep to it."""

RUN_TOKENS = {"cpu": 512, "cuda": sys.maxsize}
"""Tokens beyond which a batch is cut up: on a CPU, what passes from operator to operator stays in the cache."""

Results = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]


class OnnxNetwork:
    """What `M3Model` computes, computed by ONNX Runtime; one may be shared by threads.

    Args:
        folder: Of an export, with `model.onnx`.
        device: The CPU or a CUDA device.

    Attributes:
        hidden: Length of the dense vector.
        colbert_dim: Length of a token vector.

    Raises:
        ConfigurationError: If onnxruntime cannot use the device.
        ImportError: If onnxruntime is not installed.
        ModelError: If the export does not load.
    """

    def __init__(self, folder: Path, *, device: torch.device) -> None:
        runtime = require("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        # The graph is built from the operators that are fast; some fusions would put slower ones in.
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        # A plan made for one shape is kept for ever, and no two batches have the same shape.
        options.enable_mem_pattern = False
        options.log_severity_level = 4  # what goes wrong is raised; stderr belongs to the caller
        providers = _providers(device, runtime.get_available_providers())
        try:
            # Its own answer to a failure is to try the CPU, told on stdout.
            self._session = runtime.InferenceSession(
                str(folder / GRAPH_FILE), options, providers=providers, enable_fallback=0
            )
        except Exception as error:
            if device.type == "cuda" and type(error) is RuntimeError:
                raise ConfigurationError(
                    f"onnxruntime cannot use {device}: {error}; choose another, or device='cpu'"
                ) from error
            if not _is_of_onnxruntime(error):
                raise
            raise ModelError(f"the exported model in {folder} does not load: {error}; remove the folder") from error
        self._session.disable_fallback()
        if device.type == "cuda" and "CUDAExecutionProvider" not in self._session.get_providers():
            raise ConfigurationError(
                "onnxruntime cannot load its CUDA libraries: install those that `onnxruntime-gpu` names, or choose "
                "device='cpu'"
            )
        self._run_tokens = RUN_TOKENS[device.type]
        padding = self._session.get_modelmeta().custom_metadata_map.get(PADDING_KEY)
        self._padding = None if padding is None else int(padding)
        shapes = {output.name: output.shape for output in self._session.get_outputs()}
        self.hidden, self.colbert_dim = int(shapes["dense"][1]), int(shapes["colbert"][1])

    def __call__(self, batch: Batch) -> Representations:
        """Encode a batch.

        Raises:
            MemoryError: If it does not fit in memory.
        """
        groups = groups_of_like_length(batch.lengths, max_tokens=self._run_tokens)
        if len(groups) == 1 and np.array_equal(groups[0], np.arange(len(batch))):
            return _as_tensors(self._run(batch))
        starts = np.concatenate([[0], np.cumsum(batch.kept)])
        dense = np.empty((len(batch), self.hidden), np.float32)
        lexical = np.empty(int(starts[-1]), np.float32)
        colbert = np.empty((int(starts[-1]), self.colbert_dim), np.float32)
        for rows in groups:
            at = np.concatenate([np.arange(starts[row], starts[row + 1]) for row in rows])
            dense[rows], lexical[at], colbert[at] = self._run(batch.take(rows))
        return _as_tensors((dense, lexical, colbert))

    def _run(self, batch: Batch) -> Results:
        try:
            given = inputs_of(batch, padding=self._padding)
            results: Results = tuple(self._session.run(["dense", "lexical", "colbert"], given))
        except Exception as error:
            if _is_of_onnxruntime(error) and ("bad_alloc" in str(error) or "Failed to allocate" in str(error)):
                raise MemoryError(str(error)) from error
            raise
        return results


def inputs_of(batch: Batch, *, padding: int | None) -> dict[str, npt.NDArray[Any]]:
    """The inputs of the graph, as `M3Graph` declares them; `padding` is that of `token_numbers`."""
    tokens = len(batch.ids)
    slots = _side_by_side(np.arange(tokens), batch.owners, texts=len(batch), empty=tokens)
    used = np.flatnonzero(batch.pool)
    owners = batch.owners[used]
    return {
        "ids": batch.ids,
        "positions": token_numbers(batch.ids, batch.lengths, padding=padding),
        "slots": slots,
        "places": np.flatnonzero(slots.ravel() < tokens),
        "kept": np.flatnonzero(batch.keep),
        "pooled": _side_by_side(used, owners, texts=len(batch), empty=0),
        "pool_weights": _side_by_side(batch.pool[used], owners, texts=len(batch), empty=0)[:, None],
    }


def groups_of_like_length(lengths: Rows, *, max_tokens: int) -> list[Rows]:
    """Cut texts into groups of some tokens that waste little when they are padded to the longest of their group."""
    order = np.argsort(-lengths, kind="stable")
    groups, start, tokens = [], 0, 0
    for i, row in enumerate(order):
        tokens += int(lengths[row])
        padded = (i + 1 - start) * int(lengths[order[start]])
        if i > start and (tokens > max_tokens or padded > PADDING * tokens):
            groups.append(order[start:i])
            start, tokens = i, int(lengths[row])
    return [*groups, order[start:]]


def _side_by_side(values: npt.NDArray[Any], owners: Rows, *, texts: int, empty: int) -> npt.NDArray[Any]:
    """Values of texts, sorted by text, as `(texts, most values of one)`."""
    counts = np.bincount(owners, minlength=texts)
    starts = np.cumsum(counts) - counts
    padded = np.full((texts, int(counts.max(initial=0))), empty, values.dtype)
    padded[owners, np.arange(len(values)) - starts[owners]] = values
    return padded


def _as_tensors(results: Results) -> Representations:
    return Representations(*(torch.from_numpy(result) for result in results))


def _is_of_onnxruntime(error: Exception) -> bool:
    return type(error).__module__.startswith("onnxruntime")


def _providers(device: torch.device, available: list[str]) -> list[Any]:
    if device.type == "cpu":
        return ["CPUExecutionProvider"]
    if device.type != "cuda":
        raise ConfigurationError(f"the onnx backend runs on a CPU or on CUDA, not on {device}: choose device='cpu'")
    if "CUDAExecutionProvider" not in available:
        raise ConfigurationError(
            "the installed onnxruntime has no support for CUDA: "
            "`pip uninstall onnxruntime && pip install onnxruntime-gpu`, or choose device='cpu'"
        )
    # Whose products would be in TF32, of ten bits.
    return [("CUDAExecutionProvider", {"device_id": device.index or 0, "use_tf32": 0}), "CPUExecutionProvider"]
