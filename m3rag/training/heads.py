"""Train a lexical and a ColBERT head on a frozen backbone.

    python -m m3rag.training.heads DATA --out FOLDER

DATA is a folder of FlagEmbedding's jsonl. The backbone runs once over every text; then the heads
train on its stored token states with the losses of M3, where the dense leg is given.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from m3rag.encoder.checkpoint import SHIPPED_HEADS
from m3rag.encoder.encoder import M3Encoder
from m3rag.training.data import Example, load_examples
from m3rag.training.loss import LegScores, m3_loss
from m3rag.training.states import TokenStates, token_states

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class HeadTraining:
    """The settings of a run; the defaults made the heads that ship with `mini`."""

    colbert_dim: int = 128
    per_source: int = 1000
    negatives: int = 2
    batch_size: int = 48
    epochs: int = 4
    learning_rate: float = 1e-3
    temperature: float = 0.02
    distill: bool = True
    seed: int = 0


class Heads(nn.Module):
    """The two heads; the ColBERT head starts as the principal directions of the token states."""

    def __init__(self, states: Tensor, colbert_dim: int, *, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        sample = states[torch.randperm(len(states), generator=generator)[:200_000]].float()
        mean = sample.mean(0)
        _, _, directions = torch.linalg.svd((sample - mean).T @ (sample - mean))
        self.colbert_linear = nn.Linear(states.shape[1], colbert_dim)
        self.sparse_linear = nn.Linear(states.shape[1], 1)
        with torch.no_grad():
            self.colbert_linear.weight.copy_(directions[:colbert_dim])
            self.colbert_linear.bias.copy_(-directions[:colbert_dim] @ mean)
            # Every token starts with the same small weight: a relu that starts at 0 would stay there.
            nn.init.zeros_(self.sparse_linear.weight)
            nn.init.constant_(self.sparse_linear.bias, 0.1)


def leg_scores(heads: Heads, queries: TokenStates, q: Tensor, passages: TokenStates, p: Tensor) -> LegScores:
    """Scores of the queries `q` against the passages `p`, `(len(q), len(p))` a leg."""
    dense = queries.dense[q] @ passages.dense[p].T
    q_rows, q_owner = queries.rows(q)
    p_rows, p_owner = passages.rows(p)
    q_states, p_states = queries.states[q_rows].float(), passages.states[p_rows].float()

    q_tokens = F.normalize(heads.colbert_linear(q_states), dim=-1)  # (query tokens, C)
    p_tokens = F.normalize(heads.colbert_linear(p_states), dim=-1)  # (passage tokens, C)
    similarities = q_tokens @ p_tokens.T
    best = similarities.new_full((len(q_tokens), len(p)), -1.0)
    best = best.scatter_reduce(1, p_owner.expand(len(q_tokens), -1), similarities, "amax", include_self=False)
    colbert = best.new_zeros(len(q), len(p)).index_add(0, q_owner, best)
    colbert = colbert / torch.bincount(q_owner, minlength=len(q))[:, None]

    vocabulary, columns = torch.unique(torch.cat([queries.ids[q_rows], passages.ids[p_rows]]), return_inverse=True)
    q_weights = _lexical(
        heads,
        q_states,
        queries.lexical[q_rows],
        owner=q_owner,
        columns=columns[: len(q_rows)],
        shape=(len(q), len(vocabulary)),
    )
    p_weights = _lexical(
        heads,
        p_states,
        passages.lexical[p_rows],
        owner=p_owner,
        columns=columns[len(q_rows) :],
        shape=(len(p), len(vocabulary)),
    )
    return LegScores(dense, q_weights @ p_weights.T, colbert)


def _lexical(
    heads: Heads, states: Tensor, carries: Tensor, *, owner: Tensor, columns: Tensor, shape: tuple[int, int]
) -> Tensor:
    weights = torch.relu(heads.sparse_linear(states)).squeeze(-1) * carries
    flat = weights.new_zeros(shape[0] * shape[1])
    return flat.scatter_reduce(0, owner * shape[1] + columns, weights, "amax").view(shape)


def batches(examples: Sequence[Example], *, batch_size: int, rng: np.random.Generator) -> Iterator[list[int]]:
    """One epoch of batches, each of one source, in random order."""
    by_source: dict[str, list[int]] = defaultdict(list)
    for i, example in enumerate(examples):
        by_source[example.source].append(i)
    found = []
    for members in by_source.values():
        shuffled = rng.permutation(members).tolist()
        found += [shuffled[i : i + batch_size] for i in range(0, len(shuffled), batch_size)]
    for i in rng.permutation(len(found)):
        yield found[i]


def train_heads(
    examples: Sequence[Example],
    queries: TokenStates,
    passages: TokenStates,
    index: dict[str, int],
    settings: HeadTraining,
) -> Heads:
    """Train both heads.

    Args:
        examples: What to learn from; `queries` holds their questions in order.
        queries: Token states of the questions.
        passages: Token states of the passages.
        index: Passage text to its row in `passages`.
        settings: The run.
    """
    rng = np.random.default_rng(settings.seed)
    heads = Heads(passages.states, settings.colbert_dim, seed=settings.seed)
    optimizer = torch.optim.AdamW(heads.parameters(), lr=settings.learning_rate, weight_decay=0.0)
    plan = [b for _ in range(settings.epochs) for b in batches(examples, batch_size=settings.batch_size, rng=rng)]
    if not plan:
        return heads
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=len(plan), pct_start=0.1
    )
    for step, batch in enumerate(plan, 1):
        p, targets = _passages_of([examples[i] for i in batch], index)
        scores = leg_scores(heads, queries, torch.tensor(batch), passages, p)
        scaled = LegScores(*(s / settings.temperature for s in scores))
        loss = m3_loss(scaled, targets, distill=settings.distill)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        scheduler.step()
        if step % 50 == 0 or step == len(plan):
            hits = [float((s.argmax(1) == targets).float().mean()) for s in scores]
            logger.info(
                "step %d/%d loss %.4f in-batch hit@1 dense %.3f lexical %.3f colbert %.3f",
                step,
                len(plan),
                loss.item(),
                *hits,
            )
    return heads


def _passages_of(batch: Sequence[Example], index: dict[str, int]) -> tuple[Tensor, Tensor]:
    """The batch's distinct passages, and for each example the column of its positive."""
    rows = list(dict.fromkeys(index[p] for e in batch for p in (e.positive, *e.negatives)))
    column = {row: i for i, row in enumerate(rows)}
    return torch.tensor(rows), torch.tensor([column[index[e.positive]] for e in batch])


def save_heads(heads: Heads, folder: Path) -> None:
    """Write both heads as float16 into `folder/heads.safetensors`."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({k: v.detach().half().contiguous() for k, v in heads.state_dict().items()}, folder / SHIPPED_HEADS)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train from the command line; see the module's text."""
    defaults = HeadTraining()
    parser = argparse.ArgumentParser(prog="python -m m3rag.training.heads", description=__doc__)
    parser.add_argument("data", type=Path, help="a folder of .jsonl files: query, pos, neg")
    parser.add_argument("--out", type=Path, required=True, help="where heads.safetensors and training.json go")
    parser.add_argument("--base", default="mini", help="model whose backbone is used (default: %(default)s)")
    for name, value in asdict(defaults).items():
        if isinstance(value, bool):
            parser.add_argument(f"--{name}", action=argparse.BooleanOptionalAction, default=value)
        else:
            parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    options = vars(parser.parse_args(arguments))
    data, out, base = options.pop("data"), options.pop("out"), options.pop("base")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    settings = HeadTraining(**options)
    started = time.monotonic()
    examples = load_examples(data, per_source=settings.per_source, negatives=settings.negatives, seed=settings.seed)
    texts = list(dict.fromkeys(p for e in examples for p in (e.positive, *e.negatives)))
    logger.info("%d examples, %d passages", len(examples), len(texts))
    encoder = M3Encoder(base)
    queries = token_states(encoder, [e.query for e in examples], "query")
    passages = token_states(encoder, texts, "document")
    logger.info("token states of %d tokens after %.0f s", len(passages.states), time.monotonic() - started)
    heads = train_heads(examples, queries, passages, {t: i for i, t in enumerate(texts)}, settings)
    save_heads(heads, out)
    record = {"base": base, "examples": len(examples), "passages": len(texts), "settings": asdict(settings)}
    record["seconds"] = round(time.monotonic() - started)
    (out / "training.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    logger.info("written to %s after %d s", out, record["seconds"])


if __name__ == "__main__":
    main()
