"""A report against another of the same questions, and against thresholds."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from m3rag.errors import InputError
from m3rag.evaluation.judging import FIGURES
from m3rag.evaluation.report import Report
from m3rag.evaluation.tune_interval import Interval, bootstrap

DEFAULT_SYSTEM = "all"


@dataclass(frozen=True, slots=True)
class Difference:
    """How much a figure changed, over the questions that both reports have.

    Attributes:
        system: A system's name, or `answers`.
        metric: Such as `ndcg@10`.
        questions: How many both have.
        interval: The mean of the differences and its paired bootstrap interval; one that does not hold 0
            is a change that luck does not explain.
    """

    system: str
    metric: str
    questions: int
    interval: Interval


@dataclass(frozen=True, slots=True)
class Threshold:
    """The least a figure may be.

    Attributes:
        system: A system's name, or `answers`; None for `all`, or for the only one there is.
        metric: Such as `ndcg@10`, or `refusal_f1` of the answers.
        least: The value it must reach.
    """

    system: str | None
    metric: str
    least: float

    @classmethod
    def parse(cls, text: str) -> Threshold:
        """Read `ndcg@10=0.8`, `dense:recall@100=0.9` or `answers:f1=0.4`.

        Raises:
            InputError: If it is none of these.
        """
        name, equals, value = text.rpartition("=")
        system, _, metric = name.rpartition(":")
        try:
            least = float(value)
        except ValueError:
            least = float("nan")
        if not equals or not metric or not math.isfinite(least):
            raise InputError(
                f"{text!r} is no threshold: write METRIC=VALUE or SYSTEM:METRIC=VALUE, such as ndcg@10=0.8 or "
                "answers:f1=0.4"
            )
        return cls(system or None, metric, least)

    def figure(self, known: Collection[str]) -> str:
        """Which figure is meant, as `SYSTEM:METRIC`; without a system that of `all`, or of the only one there is.

        Args:
            known: The figures there are.

        Raises:
            InputError: If it is none of them.
        """
        systems = dict.fromkeys(name.rpartition(":")[0] for name in known if not name.startswith("answers:"))
        usual = next((name for name in systems if name.casefold() == DEFAULT_SYSTEM), DEFAULT_SYSTEM)
        system = self.system or (next(iter(systems)) if len(systems) == 1 else usual)
        name = f"{system}:{self.metric}"
        if name not in known:
            raise InputError(f"there is no figure {name} to hold a threshold against; there are {', '.join(known)}")
        return name

    def failure(self, report: Report) -> str | None:
        """What is wrong, in words; None if the figure reaches the threshold.

        Raises:
            InputError: If there is no such figure, or nothing to work it out from.
        """
        if not report.systems and self.system != "answers":
            raise InputError(
                f"{self.metric} cannot be held against {self.least:g}: no question was left to search for, since "
                "nothing relevant to them is in the index; `m3rag list` names the documents, mend the labels"
            )
        systems = report.systems.items()
        figures = {f"{name}:{key}": value for name, of in systems for key, value in of["metrics"].items()}
        figures |= {f"answers:{key}": (report.answers or {}).get(key) for key in FIGURES if report.answers}
        name = self.figure(figures)
        if figures[name] is None:
            raise InputError(f"{name} has no value: no question of this kind was asked, or no such answer given")
        return None if figures[name] >= self.least else f"{name} is {figures[name]:.4f}, below {self.least:g}"


def require_same_data(data_hash: str, baseline: Report) -> None:
    """Refuse a baseline of other questions, labels or passages.

    Raises:
        InputError: If it is one.
    """
    theirs = baseline.context.get("data") or {}
    if theirs.get("hash") != data_hash:
        raise InputError(
            f"the baseline was measured on other data ({theirs.get('path')}, hash {str(theirs.get('hash'))[:12]}, not "
            f"{data_hash[:12]}): measure it again on these questions"
        )


def differences(report: Report, baseline: Report, *, seed: int = 0, level: float = 0.95) -> list[Difference]:
    """What changed in every figure that both reports have for the same questions.

    Args:
        report: The new one.
        baseline: The old one.
        seed: Of the bootstrap.
        level: Of the intervals.

    Raises:
        InputError: If they are not about the same data, or have no figure in common.
    """
    require_same_data(str(report.context.get("data", {}).get("hash")), baseline)
    found = []
    for system, metrics in report.per_query.items():
        for metric, values in metrics.items():
            before = baseline.per_query.get(system, {}).get(metric, {})
            both = sorted(values.keys() & before.keys())
            if both:
                change = np.array([values[key] - before[key] for key in both], np.float64)
                found.append(Difference(system, metric, len(both), bootstrap(change, level=level, seed=seed)))
    if not found:
        raise InputError("the baseline has no figure in common with this run: give it the same modes and metrics")
    return found
