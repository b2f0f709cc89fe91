"""The frozen backbone's token states, computed once, so that heads train in minutes on a CPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from m3rag.encoder.batching import plan_batches
from m3rag.encoder.encoder import M3Encoder
from m3rag.encoder.inputs import Role
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
    network = encoder.network
    packed = encoder.pack(texts, role=role)
    offsets = torch.from_numpy(np.concatenate([[0], np.cumsum(packed.kept)]))
    hidden = encoder.info.dense_dim
    states = torch.empty((int(offsets[-1]), hidden), dtype=torch.float16)
    dense = torch.empty((len(packed), hidden))
    for rows in plan_batches(packed.lengths, batch_tokens=encoder.batch_tokens):
        batch = packed.take(rows)
        found = network.states(batch)
        dense[rows] = torch.nn.functional.normalize(pool(found, batch), dim=-1).cpu()
        kept = found[torch.from_numpy(batch.keep)].half().cpu()
        for row, of_text in zip(rows, torch.split(kept, batch.kept.tolist()), strict=True):
            states[offsets[row] : offsets[row + 1]] = of_text
        if progress is not None:
            progress(len(rows))
    ids = torch.from_numpy(packed.ids[packed.keep])
    lexical = ~torch.isin(ids, torch.from_numpy(encoder.tokenizer.unused_ids))
    return TokenStates(states, ids, lexical, offsets, dense)
