"""Evaluation: labelled data, ranking metrics, answer metrics, and runs of a model on a set."""

from m3rag.evaluation.answers import exact_match, f1
from m3rag.evaluation.datasets import Question, RetrievalSet, load_beir, load_questions
from m3rag.evaluation.labelled import LabelledQuestion, Relevant, load_labelled
from m3rag.evaluation.metrics import aggregate, per_query
from m3rag.evaluation.run import Passages, evaluate, evaluate_bm25

__all__ = [
    "LabelledQuestion",
    "Passages",
    "Question",
    "Relevant",
    "RetrievalSet",
    "aggregate",
    "evaluate",
    "evaluate_bm25",
    "exact_match",
    "f1",
    "load_beir",
    "load_labelled",
    "load_questions",
    "per_query",
]
