"""Answers without a language model: the sentences that the question's tokens align with best."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from m3rag.answering.citations import PageOf, in_round_brackets, quotation, without_marks
from m3rag.answering.protocol import AnswerEvent, check_question, refusal
from m3rag.answering.quotable import LONGEST, Candidate, below_heads, window
from m3rag.encoder.protocol import Encoder
from m3rag.errors import ConfigurationError, IndexMismatchError
from m3rag.legs import require_legs
from m3rag.output import FloatArray
from m3rag.retrieval.still_stored import still_stored
from m3rag.sentences import sentence_spans
from m3rag.store.protocol import Store
from m3rag.types import Answer, Chunk, Hit

DEFAULT_THRESHOLD = 0.098
"""Least support of an answer, set by benchmarks/threshold.py for `mini`; other models need their own."""

BACKGROUND, BACKGROUND_SENTENCES = 0.56, 3
"""What an unrelated sentence of the same topic scored with the first `mini`, and for how many sentences it
counts: with a handful of sentences their own mean says little."""

FLOOR = 0.45
"""Least evidence of an answer, whatever the background: with the first `mini`, half of all best sentences
of unrelated documents in another language stayed below it, and hardly an answer did."""

PASSAGE_WEIGHT = 0.5
"""Weight of the passage's own MaxSim beside its sentence's: a sentence is believed more when what
stands around it is about the question too."""

MARGIN = 0.02
"""How far below the best sentence a further one may score and still be shown."""


class Extractive:
    """An `Answerer` that quotes the sentences of the passages that support an answer best.

    The evidence in a sentence is `(s + p / 2) / 1.5`: s is the mean over the question's tokens of
    the best cosine in the sentence (MaxSim), p the same over the whole passage. Both are taken
    from the token vectors that the store keeps, so that only the question is encoded. It is a mean
    of cosines, in [-1, 1].

    The support of an answer is the best sentence's evidence less the mean of all sentences of the
    passages, in [-2, 2]. Evidence alone is lower by .2 where question and passage are in different
    languages, and so is its mean: the difference can be held against one threshold. Evidence
    below a floor supports nothing, however poor the rest is.

    A heading, or a question in a line of its own, speaks for the sentence below it, which is quoted in its
    place: the question of an FAQ is no answer to it.

    Tokens of the question without a letter or digit are left out, and p is computed here rather
    than taken from `Hit.scores`: support is then the same whatever mode found the passage.

    Args:
        encoder: The model that filled the store.
        store: Where the passages' token vectors are.
        threshold: Least support of an answer; None means `DEFAULT_THRESHOLD`.
        max_sentences: Most sentences in an answer.
        page_of: Looks up the page of a quote; without it a quote has the page its chunk starts on.

    Raises:
        ConfigurationError: If `max_sentences` is below 1, or the model gives no ColBERT vectors.
    """

    def __init__(
        self,
        encoder: Encoder,
        store: Store,
        *,
        threshold: float | None = None,
        max_sentences: int = 2,
        page_of: PageOf | None = None,
    ) -> None:
        if max_sentences < 1:
            raise ConfigurationError(f"max_sentences must be at least 1, got {max_sentences}")
        require_legs(
            encoder.info,
            ["colbert"],
            what="an answer in quoted sentences",
            remedy="have a language model write it (llm=OpenAIChat(...), or llm.model in the settings)",
        )
        self.encoder = encoder
        self.store = store
        self.threshold = DEFAULT_THRESHOLD if threshold is None else threshold
        self.max_sentences = max_sentences
        self.page_of = page_of

    def answer(self, question: str, hits: Sequence[Hit]) -> Answer:
        """Answer with the best sentences, or say that the documents do not answer.

        Args:
            question: As the user asked it.
            hits: The passages found, best first. What was removed since then is not quoted.

        Returns:
            Sentences word for word, each followed by its mark, with "…" where one of more than
            400 characters is cut; footnote numbers of the source that look like marks, and backticks in runs or of an
            odd number in a sentence, are left out of `text` and kept in the quotes; other bracketed numbers that
            a citation has, such as `array[2]`, stand there in round brackets. `support` is the best sentence's,
            also in a refusal; None without any sentence.

        Raises:
            InputError: If the question is blank.
            IndexMismatchError: If the store was filled by another model.
        """
        check_question(question)
        candidates, background = self._candidates(question, hits) if hits else ([], 0.0)
        if not candidates:
            return refusal(hits)
        support = candidates[0].evidence - background
        if support < self.threshold or candidates[0].evidence < FLOOR:
            return refusal(hits, support=support)
        chosen = self._choose(candidates)
        citations = tuple(
            quotation(c.chunk, c.span, number=n, page_of=self.page_of) for n, c in enumerate(chosen, start=1)
        )
        shown = zip(chosen, citations, strict=True)
        text = " ".join(f"{c.with_cuts(_shown(cited.quote, len(citations)))} [{cited.number}]" for c, cited in shown)
        return Answer(text=text, citations=citations, hits=tuple(hits), answered=True, support=support)

    def stream(self, question: str, hits: Sequence[Hit]) -> Iterator[AnswerEvent]:
        """As `answer`: the whole text in one piece, then the `Answer`; a refusal gives no piece, as in `Generative`."""
        answer = self.answer(question, hits)
        return iter((answer.text, answer) if answer.answered else (answer,))

    def _choose(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """The best, then those nearly as good that say something else."""
        chosen: list[Candidate] = []
        for candidate in candidates:
            if len(chosen) == self.max_sentences or candidate.evidence < candidates[0].evidence - MARGIN:
                break
            # Where a chunk begins within a sentence, the chunk before it has the whole of it.
            whole = max((c for c in candidates if c.contains(candidate)), key=lambda c: c.end - c.start)
            if not any(whole.repeats(other) for other in chosen):
                chosen.append(whole)
        return chosen

    def _candidates(self, question: str, hits: Sequence[Hit]) -> tuple[list[Candidate], float]:
        """What may be quoted of all passages, best first, ties in the order of the passages; and the background."""
        query = self._content_vectors(question)
        passages, stored = still_stored(self.store, hits)
        scored = [self._score(query, hit.chunk, stored.colbert_of(i)) for i, hit in enumerate(passages)]
        sentences = [c for of_passage in scored for c in of_passage]
        quotable = [c for of_passage in scored for c in below_heads(of_passage)] or sentences
        return sorted(quotable, key=lambda c: -c.evidence), _background([c.evidence for c in sentences])

    def _content_vectors(self, question: str) -> FloatArray:
        """The question's token vectors `(q, c)`, specials and punctuation left out if words remain."""
        vectors = self.encoder.encode_queries([question]).colbert_of(0).astype(np.float32)
        spans = self.encoder.token_spans(question)
        if len(spans) != len(vectors):  # a model that puts another prefix before questions, cut at its limit
            return vectors
        counts = np.cumsum([0, *(char.isalnum() for char in question)])
        content = counts[spans[:, 1]] > counts[spans[:, 0]]
        return vectors[content] if content.any() else vectors

    def _score(self, query: FloatArray, chunk: Chunk, vectors: FloatArray) -> list[Candidate]:
        """The sentences of one passage that own tokens, with their evidence, as they stand there."""
        spans = self.encoder.token_spans(chunk.encoded_text)
        if len(spans) != len(vectors):
            raise IndexMismatchError(
                f"chunk {chunk.id!r} is stored with {len(vectors)} token vectors, but the model "
                f"{self.encoder.info.name!r} makes {len(spans)} of its text: rebuild the index (m3rag rebuild)"
            )
        if not len(vectors) or not len(query):
            return []
        spans = spans - len(chunk.context)
        sentences = np.array(sentence_spans(chunk.text), np.int64).reshape(-1, 2)
        similarities = query @ vectors.astype(np.float32).T  # (q, tokens)
        tokens, owners = _owners(spans, sentences)
        if not len(tokens):
            return []
        owned = similarities[:, tokens]
        first = np.flatnonzero(np.diff(owners, prepend=-1))
        last = [*first[1:].tolist(), len(owners)]
        # A sentence's columns stand together, since tokens and sentences are in order.
        best = np.maximum.reduceat(owned, first, axis=1).mean(axis=0)
        evidence = (best + PASSAGE_WEIGHT * similarities.max(axis=1).mean()) / (1 + PASSAGE_WEIGHT)
        candidates = []
        for value, a, b in zip(evidence.tolist(), first.tolist(), last, strict=True):
            span = sentence = (int(sentences[owners[a], 0]), int(sentences[owners[a], 1]))
            if sentence[1] - sentence[0] > LONGEST:
                span = window(chunk.text, sentence, owned[:, a:b], spans[tokens[a:b]])
            candidates.append(Candidate(value, chunk, span, sentence))
        return candidates


def _shown(quote: str, citations: int) -> str:
    """A quote as it stands in an answer of so many citations, which reads on over the line breaks of its source."""
    # A fence, or code that another sentence closes, would take in the marks behind it.
    text = re.sub("``+", "", quote)
    text = text.replace("`", "") if text.count("`") % 2 else text
    # A number of the source itself would be shown as the citation of that number.
    return in_round_brackets(" ".join(without_marks(text).split()), citations)


def _background(evidence: Sequence[float]) -> float:
    """The mean evidence, drawn towards `BACKGROUND` where there are few sentences."""
    return (sum(evidence) + BACKGROUND_SENTENCES * BACKGROUND) / (len(evidence) + BACKGROUND_SENTENCES)


def _owners(
    tokens: npt.NDArray[np.int64], sentences: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Which sentence each token belongs to, by the token's last character.

    Returns:
        The rows of the tokens that stand in a sentence, and the sentence's row for each.
    """
    if not len(sentences):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    at = tokens[:, 1] - 1
    owner = np.searchsorted(sentences[:, 0], at, side="right") - 1
    inside = (tokens[:, 0] < tokens[:, 1]) & (owner >= 0) & (at < sentences[owner, 1])
    rows = np.flatnonzero(inside)
    return rows, owner[rows]
