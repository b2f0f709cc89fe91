"""The two variants of BM25, and what a token's count in a text is worth in each."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from m3rag.errors import ConfigurationError

Method = Literal["lucene", "okapi"]
"""Which variant of BM25, see `Formula`."""

EPSILON = 0.25  # rank-bm25's share of the mean idf for tokens that most texts have

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Formula:
    """How BM25 scores a text: the sum over the question's tokens of `idf * saturation`.

    With `N` texts, `n` of them having the token, `f` times in this one, its length `l` in tokens
    and the mean length `m`:

    - `lucene`: `idf = ln(1 + (N - n + .5) / (n + .5))`, always above 0;
      `saturation = f / (f + k1 (1 - b + b l / m))`. As in Lucene, and in bm25s by default.
    - `okapi`: `idf = ln((N - n + .5) / (n + .5))`, the classic, below 0 for a token that more than
      half of the texts have; as in rank-bm25's `BM25Okapi` such an idf is replaced by a quarter of
      the mean idf of all tokens. That mean is itself below 0 where most tokens are that common (a
      handful of alike texts): scores are then below 0 too. `saturation` is that of `lucene` times
      `k1 + 1`.

    Args:
        method: Which variant.
        k1: Above 0: how slowly a token's repetition saturates.
        b: 0 to 1: how much a long text is held against it.

    Raises:
        ConfigurationError: If one is out of range.
    """

    method: Method = "lucene"
    k1: float = 1.5
    b: float = 0.75

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise ConfigurationError(f"method {self.method!r} is unknown: choose one of {', '.join(get_args(Method))}")
        if not (isinstance(self.k1, Real) and 0 < self.k1 < math.inf):
            raise ConfigurationError(f"k1 must be above 0, got {self.k1!r}: 1.5 is usual")
        if not (isinstance(self.b, Real) and 0 <= self.b <= 1):
            raise ConfigurationError(f"b must be 0 to 1, got {self.b!r}: 0.75 is usual")

    def idf(self, frequencies: npt.NDArray[np.int64], texts: int) -> Floats:
        """The idf of each token.

        Args:
            frequencies: `(v,)`, how many of the texts have the token; where none has it, the idf
                means nothing.
            texts: How many texts there are.

        Returns:
            `(v,)` float64.
        """
        odds = (texts - frequencies + 0.5) / (frequencies + 0.5)
        if self.method == "lucene":
            return np.log1p(odds)
        idf: Floats = np.log(odds)
        met = frequencies > 0
        return np.where(met & (idf < 0), EPSILON * idf[met].mean() if met.any() else 0.0, idf)

    def saturation(self, counts: npt.NDArray[np.int32], relative_lengths: Floats) -> Floats:
        """What `counts` of a token in texts are worth, without its idf.

        Args:
            counts: `(n,)`, above 0.
            relative_lengths: `(n,)`, each text's length divided by the mean.
        """
        part = counts / (counts + self.k1 * (1 - self.b + self.b * relative_lengths))
        return part * (self.k1 + 1) if self.method == "okapi" else part
