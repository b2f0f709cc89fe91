"""A batch as the network sees it: its questions, its distinct passages, and which answer which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from m3rag.training.batches import Draw
from m3rag.training.data import Example
from m3rag.training.loss import Teacher


@dataclass(frozen=True, eq=False)
class StepData:
    """One step of one worker.

    Attributes:
        queries: Example numbers.
        passages: Distinct passage numbers, in order of first use.
        positives: `(queries,)` int64, the passage number of each question's positive.
        known: Of each question, the passage numbers of all that answer it.
        groups: Of each question, passage numbers and teacher's scores of what was drawn for it; None
            without a teacher.
    """

    queries: list[int]
    passages: list[int]
    positives: Tensor
    known: list[frozenset[int]]
    groups: list[list[tuple[int, float]]] | None

    @classmethod
    def of(
        cls,
        examples: Sequence[Example],
        drawn: Sequence[Draw],
        numbers: Mapping[str, int],
        *,
        known: Mapping[tuple[str, str], frozenset[str]],
        teacher: bool,
    ) -> StepData:
        """The data of a batch.

        Args:
            examples: Those to learn from.
            drawn: Which of them.
            numbers: Of each passage.
            known: As `known_positives` has it.
            teacher: Whether to keep a teacher's scores.
        """
        groups: list[list[tuple[int, float]]] = []
        positives, answers, used = [], [], {}
        for choice in drawn:
            example = examples[choice.example]
            shown = [numbers[example.positives[choice.positive]]]
            shown += [numbers[example.negatives[n]] for n in choice.negatives]
            used.update(dict.fromkeys(shown))
            positives.append(shown[0])
            answers.append(frozenset(numbers[text] for text in known[example.source, example.query]))
            if teacher:
                scores = [example.positive_scores[choice.positive]]
                scores += [example.negative_scores[n] for n in choice.negatives]
                groups.append(list(zip(shown, scores, strict=True)))
        queries = [choice.example for choice in drawn]
        targets = torch.tensor(positives, dtype=torch.int64)
        return cls(queries, list(used), targets, answers, groups if teacher else None)

    def targets(self, columns: Tensor) -> Tensor:
        """The column of each question's positive, the first of that passage."""
        return (columns[None, :] == self.positives.to(columns.device)[:, None]).int().argmax(1)

    def hidden(self, columns: Tensor, targets: Tensor) -> Tensor:
        """`(queries, passages)`, True on columns that answer the question and are not its target.

        Args:
            columns: `(passages,)` the passage number of each column, those of all workers.
            targets: As `targets` gives.
        """
        hidden = torch.zeros((len(self.queries), len(columns)), dtype=torch.bool)
        listed = columns.tolist()
        for row, known in enumerate(self.known):
            hidden[row] = torch.tensor([number in known for number in listed])
        hidden = hidden.to(columns.device)
        return hidden.scatter(1, targets[:, None], False)

    def teacher(self, columns: Tensor) -> Teacher | None:
        """The teacher's scores by column; None without a teacher."""
        if self.groups is None:
            return None
        first: dict[int, int] = {}
        for column, number in enumerate(columns.tolist()):
            first.setdefault(number, column)
        width = max(len(group) for group in self.groups)
        at = torch.zeros((len(self.groups), width), dtype=torch.int64)
        scores = torch.full((len(self.groups), width), -torch.inf)
        for row, group in enumerate(self.groups):
            for place, (number, score) in enumerate(group):
                at[row, place], scores[row, place] = first[number], score
        return Teacher(at.to(columns.device), scores.to(columns.device))
