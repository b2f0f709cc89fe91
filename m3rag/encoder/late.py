"""Spans of one text encoded in its context: the token states of one long pass, pooled span by span.

Late chunking (arXiv 2409.04701): a passage's vector is the mean of its tokens' states, which have
attended to what stands around the passage, instead of what a pass over the passage alone gives.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from m3rag.encoder.assembly import OutputBuilder
from m3rag.encoder.batching import pack
from m3rag.encoder.engine import Encoded
from m3rag.encoder.inputs import Role, require_role, require_texts
from m3rag.encoder.lexical import max_per_token
from m3rag.encoder.tokenizer import SPECIALS
from m3rag.errors import InputError
from m3rag.output import M3Output

if TYPE_CHECKING:
    from m3rag.encoder.encoder import M3Encoder

Ints = npt.NDArray[np.int64]

_ONE_PASS = threading.Lock()
"""One late pass at a time: its windows are as long as the model takes."""


class Window(NamedTuple):
    """The tokens `[start, end)` of the text that share a pass, and the spans that are taken from it."""

    start: int
    end: int
    rows: list[int]


def encode_spans(encoder: M3Encoder, text: str, spans: Sequence[tuple[int, int]], *, role: Role) -> M3Output:
    """Encode spans of a text in its context.

    A text longer than the encoder's `max_length` is read in windows of that length: each span is taken from
    a window that holds it whole, with an eighth of the window on each side of it where there is text.

    Args:
        encoder: With torch in this process.
        text: The whole text, of any length.
        spans: Half-open character spans of it, in any order; they may overlap.
        role: Which prefix each window has.

    Returns:
        One row a span. dense: the mean of the states of the tokens that begin in the span, of unit length (of zeros
        where none does), whatever the model's own pooling is. lexical and colbert: as the heads give them for
        these states. There is no closing special token among a span's token vectors, so their number is not that
        of `token_spans` of the span's text.

    Raises:
        InputError: If a span is no pair of whole numbers or not of the text, or has more tokens than a window.
        ConfigurationError: If the network is not torch's or in other processes.
        ModelError: If the model gives an infinity or NaN.
    """
    require_texts([text])
    require_role(role)
    network = encoder.network
    prefix = encoder.recipe.query_prefix if role == "query" else encoder.recipe.document_prefix
    dropped = 1 + encoder.tokenizer.prefix_length(prefix)
    ids = encoder.tokenize([text], role=role, max_length=sys.maxsize).ids[0]
    head, content, tail = ids[:dropped], ids[dropped:-1], ids[-1:]
    room = encoder.max_length - len(head) - len(tail)
    places = encoder.tokenizer.token_spans(text, prefix=prefix, max_length=sys.maxsize)[:-1]
    ranges = _token_ranges(text, spans, places[:, 0], room)
    builder = OutputBuilder(len(spans), encoder.info, encoder.colbert_dtype)
    builder.reserve(ranges[:, 1] - ranges[:, 0])
    finish = _Finish(encoder)
    for window in windows(ranges, room=room, total=len(content)):
        tokens = content[window.start : window.end]
        batch = pack([np.concatenate([head, tokens, tail])], dropped=dropped, pooling=encoder.recipe.pooling)
        with _ONE_PASS, torch.inference_mode():
            states = network.states(batch)[dropped:-1]
            lexical = torch.relu(network.sparse_linear(states)).squeeze(-1)
            own = ranges[window.rows] - window.start
            encoded = finish(tokens, own, states, lexical, network.colbert_linear(states))
        encoded.require_finite(encoder.info.name)
        builder.write(np.array(window.rows, np.int64), encoded)
    return builder.output()


def windows(ranges: Ints, *, room: int, total: int) -> Iterator[Window]:
    """Windows that together hold each range of tokens whole, once.

    Args:
        ranges: `(n, 2)` half-open, none longer than `room`.
        room: Most tokens of a window.
        total: Tokens of the text.
    """
    margin = room // 8
    rows: list[int] = []
    start = end = 0
    for row in np.lexsort((ranges[:, 1], ranges[:, 0])).tolist():
        first, last = (int(edge) for edge in ranges[row])
        if not rows or last + margin > end < total or last > end:
            if rows:
                yield Window(start, end, rows)
            start = max(first - margin, last - room, 0)
            end = min(start + room, total)
            rows = []
        rows.append(row)
    if rows:
        yield Window(start, end, rows)


class _Finish:
    """States to the representations of ranges of them."""

    def __init__(self, encoder: M3Encoder) -> None:
        self._unused = encoder.tokenizer.unused_ids
        self._dense_dim = encoder.info.dense_dim
        self._normalize = encoder.normalize
        self._colbert_dtype = encoder.colbert_dtype

    def __call__(
        self, ids: Ints, ranges: Ints, states: torch.Tensor, lexical: torch.Tensor, colbert: torch.Tensor
    ) -> Encoded:
        counts = ranges[:, 1] - ranges[:, 0]
        owners = np.repeat(np.arange(len(ranges)), counts)
        at = np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(ranges[:, 0], counts)
        # Sums of at most a window's states, so that single precision is enough.
        sums = torch.zeros((len(ranges), states.shape[1]), device=states.device)
        sums.index_add_(0, torch.as_tensor(owners, device=states.device), states[at].float())
        dense = sums[:, : self._dense_dim] / torch.as_tensor(
            np.maximum(counts, 1)[:, None].astype(np.float32), device=states.device
        )
        if self._normalize:
            dense, colbert = F.normalize(dense, dim=-1), F.normalize(colbert, dim=-1)
        used = ~np.isin(ids[at], self._unused)
        weights = lexical.float().cpu().numpy()[at]
        return Encoded(
            dense.cpu().numpy(),
            max_per_token(owners[used], ids[at][used], weights[used]),
            colbert.float().cpu().numpy().astype(self._colbert_dtype)[at],
        )


def _edges(spans: Sequence[tuple[int, int]]) -> Ints:
    try:
        edges = np.asarray(spans)
    except ValueError:  # pairs and longer ones
        edges = np.asarray(None)
    if edges.shape[:1] != (0,) and (edges.dtype.kind not in "iu" or edges.shape[1:] != (2,)):
        raise InputError(f"spans must be pairs of whole numbers (start, end), got {spans!r:.80}")
    return edges.astype(np.int64).reshape(-1, 2)


def _token_ranges(text: str, spans: Sequence[tuple[int, int]], starts: Ints, room: int) -> Ints:
    """The tokens that begin in each span: `(n, 2)`."""
    edges = _edges(spans)
    for start, end in edges.tolist():
        if not 0 <= start <= end <= len(text):
            raise InputError(f"the span ({start}, {end}) is not of the text, which has {len(text)} characters")
    ranges = np.searchsorted(np.maximum.accumulate(starts) if len(starts) else starts, edges).astype(np.int64)
    longest = int((ranges[:, 1] - ranges[:, 0]).max(initial=0))
    if longest > room:
        raise InputError(
            f"a span has {longest} tokens, and a window of this model {room} beside its {SPECIALS} special tokens and "
            "prefix: make smaller chunks, or raise max_length"
        )
    return ranges
