"""The contents of a `BM25Leg` made ready for questions: postings, scores, and what filters look at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from m3rag.bm25.backends import Backend, scorer
from m3rag.bm25.entries import Contents
from m3rag.bm25.formula import Floats, Formula
from m3rag.bm25.postings import Postings, Rows
from m3rag.store.filters import EVERYTHING, Condition, holds
from m3rag.types import Chunk


class Searchable:
    """One moment's contents, never changed; rows are chunks in the order of their ids.

    Attributes:
        entries: The entries that it was made of.
        ids: The chunk ids, ascending.
        rows: The row of each id.
        postings: The counts of all chunks.
    """

    def __init__(self, contents: Contents, *, backend: Backend, formula: Formula) -> None:
        """Turn the bags of all chunks into postings, and prepare their scores."""
        self.entries = contents.entries
        self.ids = sorted(contents.entries)
        self.rows = {id_: row for row, id_ in enumerate(self.ids)}
        entries = [contents.entries[id_] for id_ in self.ids]
        self.postings = Postings.of([entry.bag for entry in entries], vocabulary_size=len(contents.vocabulary))
        self._vocabulary = contents.vocabulary
        self._scorer = scorer(backend, self.postings, formula)
        numbers = {owner: i for i, owner in enumerate(dict.fromkeys(entry.owner for entry in entries))}
        self._owners = list(numbers)
        self._owner_of_row = np.array([numbers[entry.owner] for entry in entries], np.int64)
        self._examples: dict[int, Chunk] = {}

    def tokens(self, words: Sequence[str]) -> list[int]:
        """The ids of a question's tokens, those left out that no text ever had."""
        return [self._vocabulary[word] for word in words if word in self._vocabulary]

    def scores(self, tokens: Sequence[int]) -> Floats:
        """The scores of all rows, `(n,)`."""
        return self._scorer.scores(tokens)

    def passing(self, rows: Rows, condition: Condition) -> Rows:
        """Those of some rows that pass a filter; each owner is looked at once."""
        if condition == EVERYTHING:
            return rows
        owners = self._owner_of_row[rows]
        passes = np.zeros(len(self._owners), bool)
        for owner in np.unique(owners).tolist():
            passes[owner] = holds(condition, self._example(owner))
        return rows[passes[owners]]

    def _example(self, owner: int) -> Chunk:
        if owner not in self._examples:
            self._examples[owner] = self._owners[owner].chunk()
        return self._examples[owner]
