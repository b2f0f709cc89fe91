"""Negatives from all workers: each scores its own questions against the passages of all."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from m3rag.training.representation import Texts


def is_distributed() -> bool:
    """Whether a process group of more than one worker is set up."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    """The number of this worker, from 0."""
    return dist.get_rank() if is_distributed() else 0


def world_size() -> int:
    """How many workers there are."""
    return dist.get_world_size() if is_distributed() else 1


class _Gather(torch.autograd.Function):
    """All workers' rows, one after the other; the gradient of own rows is summed over all workers."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, counts: list[int]) -> Tensor:
        ctx.counts = counts
        longest = max(counts)
        padded = rows.new_zeros((longest, *rows.shape[1:]))
        padded[: len(rows)] = rows
        found = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(found, padded)
        return torch.cat([part[:count] for part, count in zip(found, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        summed = gradients[0].contiguous().clone()
        dist.all_reduce(summed)
        start = sum(ctx.counts[: dist.get_rank()])
        return summed[start : start + ctx.counts[dist.get_rank()]], None


def gather_rows(rows: Tensor) -> Tensor:
    """The rows of all workers, in the order of their numbers; as given where there is only one."""
    if not is_distributed():
        return rows
    sizes = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(world_size())]
    dist.all_gather(sizes, torch.tensor([len(rows)], device=rows.device))
    found: Tensor = _Gather.apply(rows, [int(size) for size in sizes])  # type: ignore[no-untyped-call]
    return found


def gather_texts(texts: Texts) -> Texts:
    """The texts of all workers, with gradients back to each."""
    return Texts(*(gather_rows(tensor) for tensor in texts)) if is_distributed() else texts


def sum_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Add the gradients of all workers, in place."""
    if not is_distributed():
        return
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        dist.all_reduce(parameter.grad)


def stacked(value: Tensor, device: torch.device) -> Tensor:
    """The tensors of all workers, of one shape, under each other on the CPU: `(workers, *shape)`.

    Args:
        value: This worker's.
        device: Where the workers' group can exchange it.
    """
    if not is_distributed():
        return value.cpu()[None]
    own = value.to(device)
    found = [torch.empty_like(own) for _ in range(world_size())]
    dist.all_gather(found, own)
    return torch.stack(found).cpu()


def total(value: Tensor) -> Tensor:
    """The sum over all workers, without a gradient."""
    summed = value.detach().clone()
    if is_distributed():
        dist.all_reduce(summed)
    return summed
