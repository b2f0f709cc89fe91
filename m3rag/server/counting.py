"""Shared calls of an encoder, counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from m3rag.encoder.microbatch import MicroBatcher
from m3rag.output import M3Output

Output = TypeVar("Output", M3Output, npt.NDArray[np.float32])

CPU_CHARS = 16_384
"""Most characters of one call on a CPU: a question waits for the one that runs, and a few texts fill a CPU already."""


@dataclass(frozen=True, slots=True)
class _Counted:
    """A method that counts; equal ones may be joined, as the methods may."""

    method: Callable[..., Any]
    count: Callable[[int], None]

    def __call__(self, texts: list[str], **options: object) -> Any:
        self.count(len(texts))
        return self.method(texts, **options)

    @property
    def __name__(self) -> str:
        return str(self.method.__name__)


class CountingBatcher(MicroBatcher):
    """A `MicroBatcher` that says of each call how many texts it has.

    Attributes:
        count: Called before each call of the encoder, in its thread.

    Args:
        limits: As `MicroBatcher`.
    """

    def __init__(self, count: Callable[[int], None], **limits: Any) -> None:
        super().__init__(**limits)
        self.count = count

    async def run(self, method: Callable[..., Output], texts: Sequence[str], **options: object) -> Output:
        """As `MicroBatcher.run`."""
        return await super().run(_Counted(method, self.count), texts, **options)
