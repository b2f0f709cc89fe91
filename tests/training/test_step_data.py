from __future__ import annotations

import torch

from m3rag.training.batches import Draw
from m3rag.training.data import Example, known_positives
from m3rag.training.step_data import StepData

EXAMPLES = [
    Example("q0", ("a", "b"), ("x", "y"), "s", (5.0, 4.0), (1.0, 0.0)),
    Example("q1", ("c",), ("a", "x"), "s", (3.0,), (2.0, 1.5)),
    Example("q2", ("b",), (), "s", (1.0,), ()),
]
NUMBERS = {text: 10 + i for i, text in enumerate("abcxy")}
DRAWN = [Draw(0, 0, (0,)), Draw(1, 0, (0, 1)), Draw(2, 0, ())]


def test_passages_are_shown_once_and_other_answers_are_hidden() -> None:
    step = StepData.of(EXAMPLES, DRAWN, NUMBERS, known=known_positives(EXAMPLES), teacher=False)
    assert (step.queries, step.passages) == ([0, 1, 2], [10, 13, 12, 11])  # a x c b
    columns = torch.tensor([*step.passages, 10])  # as if another worker had `a` too
    targets = step.targets(columns)
    assert targets.tolist() == [0, 2, 3]
    # q0 is answered by `b` and by the second `a` as well; `a` is a negative of q1.
    assert step.hidden(columns, targets).tolist() == [
        [False, False, False, True, True],
        [False, False, False, False, False],
        [False, False, False, False, False],
    ]


def test_the_teachers_scores_stand_at_their_columns() -> None:
    step = StepData.of(EXAMPLES, DRAWN, NUMBERS, known=known_positives(EXAMPLES), teacher=True)
    teacher = step.teacher(torch.tensor(step.passages))
    assert teacher is not None
    assert teacher.columns.tolist() == [[0, 1, 0], [2, 0, 1], [3, 0, 0]]
    assert teacher.scores.tolist() == [[5.0, 1.0, -torch.inf], [3.0, 2.0, 1.5], [1.0, -torch.inf, -torch.inf]]
    assert (
        StepData.of(EXAMPLES, DRAWN, NUMBERS, known=known_positives(EXAMPLES), teacher=False).teacher(
            torch.tensor([10])
        )
        is None
    )


def test_what_answers_in_another_row_of_the_question_is_no_negative() -> None:
    rows = [Example("q", ("a",), (), "s"), Example("q", ("b",), (), "s"), Example("q", ("c",), (), "other")]
    drawn = [Draw(i, 0, ()) for i in range(3)]
    step = StepData.of(rows, drawn, NUMBERS, known=known_positives(rows), teacher=False)
    columns = torch.tensor(step.passages)
    hidden = step.hidden(columns, step.targets(columns))
    assert hidden.tolist() == [[False, True, False], [True, False, False], [False, False, False]]
