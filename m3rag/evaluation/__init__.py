"""Evaluation: labelled data, ranking and answer metrics, and runs of a model or an index on a set."""

from m3rag.evaluation.answers import exact_match, f1
from m3rag.evaluation.comparing import Difference, Threshold, differences
from m3rag.evaluation.corpus import chunked, take_corpus
from m3rag.evaluation.datasets import Question, RetrievalSet, load_beir, load_corpus, load_questions
from m3rag.evaluation.judging import JudgedAnswer, judge, judge_all, summary
from m3rag.evaluation.labelled import LabelledQuestion, Relevant, load_labelled
from m3rag.evaluation.metrics import aggregate, per_query
from m3rag.evaluation.questions import EvalQuestion, load_eval_questions, questions_of
from m3rag.evaluation.report import Report, load_report
from m3rag.evaluation.run import Passages, evaluate, evaluate_bm25
from m3rag.evaluation.searching import SearchRun, System, search_all

__all__ = [
    "Difference",
    "EvalQuestion",
    "JudgedAnswer",
    "LabelledQuestion",
    "Passages",
    "Question",
    "Relevant",
    "Report",
    "RetrievalSet",
    "SearchRun",
    "System",
    "Threshold",
    "aggregate",
    "chunked",
    "differences",
    "evaluate",
    "evaluate_bm25",
    "exact_match",
    "f1",
    "judge",
    "judge_all",
    "load_beir",
    "load_corpus",
    "load_eval_questions",
    "load_labelled",
    "load_questions",
    "load_report",
    "per_query",
    "questions_of",
    "search_all",
    "summary",
    "take_corpus",
]
