"""The frozen backbone's token states, computed once, so that heads train in minutes on a CPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from m3rag.encoder.batching import plan_batches
from m3rag.encoder.encoder import M3Encoder, Role, pad
from m3rag.encoder.model import pool


@dataclass(frozen=True, eq=False)
class TokenStates:
    """States of many texts, packed, with specials and prefix left out as the heads will see them.

    Attributes:
        states: `(tokens, hidden)` float16.
        ids: `(tokens,)` int64 token ids.
        lexical: `(tokens,)` bool, False on tokens that never carry a lexical weight.
        offsets: `(texts + 1,)` int64.
        dense: `(texts, hidden)` float32 of unit length.
    """

    states: Tensor
    ids: Tensor
    lexical: Tensor
    offsets: Tensor
    dense: Tensor

    def rows(self, texts: Tensor) -> tuple[Tensor, Tensor]:
        """The token rows of some texts and, for each row, which of them it belongs to."""
        starts, ends = self.offsets[texts], self.offsets[texts + 1]
        owner = torch.repeat_interleave(torch.arange(len(texts)), ends - starts)
        first = torch.cumsum(ends - starts, 0) - (ends - starts)
        return torch.arange(len(owner)) - first[owner] + starts[owner], owner


@torch.inference_mode()
def token_states(
    encoder: M3Encoder, texts: Sequence[str], role: Role, *, progress: Callable[[int], None] | None = None
) -> TokenStates:
    """Run the backbone once over all texts."""
    prefix = encoder.recipe.query_prefix if role == "query" else encoder.recipe.document_prefix
    dropped = 1 + encoder.tokenizer.prefix_length(prefix)
    ids = encoder.tokenizer.encode(texts, prefix=prefix)
    lengths = np.array([len(i) for i in ids])
    offsets = torch.from_numpy(np.concatenate([[0], np.cumsum(lengths - dropped)]))
    hidden = encoder.info.dense_dim
    states = torch.empty((int(offsets[-1]), hidden), dtype=torch.float16)
    dense = torch.empty((len(ids), hidden))
    for rows in plan_batches(lengths, batch_tokens=encoder.batch_tokens):
        padded, mask, keep = pad([ids[r] for r in rows], pad_id=encoder.tokenizer.pad_id, dropped=dropped)
        batch = encoder.model.hidden_states(padded.to(encoder.device), mask.to(encoder.device))
        pooled = pool(batch, mask.to(encoder.device), encoder.recipe.pooling)
        dense[rows] = torch.nn.functional.normalize(pooled.float(), dim=-1).cpu()
        for i, row in enumerate(rows):
            states[offsets[row] : offsets[row + 1]] = batch[i][keep[i]].half().cpu()
        if progress is not None:
            progress(len(rows))
    kept = torch.from_numpy(np.concatenate([i[dropped:] for i in ids]))
    lexical = ~torch.isin(kept, torch.from_numpy(encoder.tokenizer.unused_ids))
    return TokenStates(states, kept, lexical, offsets, dense)
