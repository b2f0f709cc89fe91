"""Mode: which legs a search looks at."""

from __future__ import annotations

from enum import StrEnum

from m3rag.errors import ConfigurationError
from m3rag.legs import require_legs
from m3rag.types import LEGS, SEARCH_LEGS, Leg, ModelInfo, SearchLeg


class Mode(StrEnum):
    """Which of the three representations, or BM25 beside them, find and order the hits.

    A mode is also its string, `Mode.ALL == "all"`, so either can be given wherever one is asked for.
    """

    DENSE = "dense"
    LEXICAL = "lexical"
    COLBERT = "colbert"
    DENSE_LEXICAL = "dense+lexical"
    ALL = "all"
    BM25 = "bm25"
    DENSE_BM25 = "dense+bm25"

    @property
    def legs(self) -> tuple[SearchLeg, ...]:
        """The legs the mode scores, in the order of `m3rag.types.SEARCH_LEGS`."""
        return LEGS if self is Mode.ALL else tuple(leg for leg in SEARCH_LEGS if leg in self.value.split("+"))

    @property
    def model_legs(self) -> tuple[Leg, ...]:
        """Those of its legs that the model gives; none for `bm25`, which encodes nothing."""
        return tuple(leg for leg in LEGS if leg in self.legs)

    @property
    def needs_bm25(self) -> bool:
        """Whether it looks at BM25, for which a retriever must have been given the leg."""
        return "bm25" in self.legs

    def check(self, model: ModelInfo) -> None:
        """Refuse a mode that looks at a leg which a model does not give; no other mode is taken instead.

        Raises:
            ConfigurationError: If it does; the message names the modes there are for the model.
        """
        possible = " or ".join(f"mode={mode.value!r}" for mode in M3_MODES if set(mode.legs) <= set(model.legs))
        require_legs(model, self.model_legs, what=f"mode {self.value!r}", remedy=f"choose {possible}")

    @classmethod
    def parse(cls, value: Mode | str) -> Mode:
        """A mode from its name.

        Raises:
            ConfigurationError: If there is no such mode; the message names those there are.
        """
        try:
            return cls(value)
        except ValueError:
            names = ", ".join(mode.value for mode in cls)
            raise ConfigurationError(f"unknown mode {value!r}: choose one of {names}") from None


M3_MODES: tuple[Mode, ...] = tuple(mode for mode in Mode if not mode.needs_bm25)
"""The modes of the model's own representations, which a store alone can serve."""
