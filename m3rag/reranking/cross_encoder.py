"""CrossEncoderReranker: a model that reads question and passage together."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import numpy as np
from scipy.special import expit

from m3rag._copied import CopiedAsItself
from m3rag.encoder.checkpoint import Checkpoint, ModelName
from m3rag.encoder.device import Device, choose_device, choose_dtype
from m3rag.encoder.encoder import BATCH_TOKENS, CHARACTERS_PER_TOKEN, WINDOW_BATCHES
from m3rag.encoder.inputs import Progress, require_whole
from m3rag.encoder.lookahead import lookahead
from m3rag.errors import ModelError
from m3rag.reranking.classifier import load_classifier
from m3rag.reranking.order import reordered, require_rerankable, require_top_n
from m3rag.reranking.pairs import PairTokenizer, TextPair, TokenizedPairs, require_pairs, windows
from m3rag.reranking.scorer import PairScorer, Scores
from m3rag.types import Hit

log = logging.getLogger(__name__)


class CrossEncoderReranker(CopiedAsItself):
    """Rerank with a cross-encoder: a sequence classifier that reads question and passage together.

    Takes any sequence-classification checkpoint with a `tokenizer.json`: XLM-R, RoBERTa, CamemBERT
    and BERT on our own packed network, other architectures through transformers. The scores are
    those of FlagEmbedding's `FlagReranker`, whatever the batching. Safe to share between threads:
    the forward pass is locked.

    It costs a forward pass a hit, a hundred times a search: give it the best 20 to 100 hits.

    When not to use it: rerankers are trained to tell whether a passage answers a question. Where
    relevance is something else they can rank worse than what they were given, most of all in
    counter-argument retrieval as in ArguAna, where the passage wanted contradicts the query and
    the passage most like the query is wrong; likewise for duplicates and citations. Nothing in
    m3rag reranks by default; measure on labelled questions before switching it on.

    Example:
        >>> reranker = CrossEncoderReranker("BAAI/bge-reranker-v2-m3")  # doctest: +SKIP
        >>> hits = reranker.rerank(question, retriever.search(question, k=50), k=10)  # doctest: +SKIP

    Args:
        model: A hub id or a checkpoint folder. It has one label, or two of which the second means
            "relevant"; the score of two is the log-odds of the second.
        device: As torch names it; a CUDA device if there is one, else the CPU.
        dtype: `float32`, `float16` or `bfloat16`; by default float16 on CUDA and float32 elsewhere.
        max_length: Most tokens of a pair, specials included; longer passages are cut, counted in
            `truncated_pairs`, and told of once a call by a log warning. By default 512, as
            FlagEmbedding's, or the model's limit where that is lower.
        query_max_length: Most tokens of a question; by default three quarters of `max_length`.
        batch_tokens: Most tokens of one forward pass; by default 2,048 on a CPU, 32,768 on CUDA.
        normalize: Give the sigmoid of the scores, 0 to 1, instead of the logits, which are unbounded.
            The order is that of the logits, also of those that are too large to tell apart by it
            (above 16 it is 1.0).
        top_n: How many hits `rerank` looks at; all that it is given if None.
        cache_folder: Where models from the hub are kept.
        local_files_only: Never ask the hub; `HF_HUB_OFFLINE=1` does the same.

    Attributes:
        truncated_pairs: How many pairs were cut so far.

    Raises:
        ModelError: If the model cannot be had or loaded, or is no reranker.
        ConfigurationError: If an option is out of range for the model.
    """

    def __init__(
        self,
        model: ModelName = "BAAI/bge-reranker-v2-m3",
        *,
        device: Device | None = None,
        dtype: str | None = None,
        max_length: int | None = None,
        query_max_length: int | None = None,
        batch_tokens: int | None = None,
        normalize: bool = False,
        top_n: int | None = None,
        cache_folder: str | None = None,
        local_files_only: bool = False,
    ) -> None:
        if batch_tokens is not None:
            require_whole("batch_tokens", batch_tokens, least=1)
        require_top_n(top_n)
        checkpoint = Checkpoint.find(model, cache_folder=cache_folder, local_files_only=local_files_only, heads=False)
        self.model = checkpoint.name
        self.device = choose_device(device)
        self.dtype = choose_dtype(dtype, self.device)
        self.batch_tokens = batch_tokens or BATCH_TOKENS.get(self.device.type, BATCH_TOKENS["cpu"])
        self.normalize = normalize
        self.top_n = top_n
        self.truncated_pairs = 0
        self.tokenizer = PairTokenizer(checkpoint.folder / "tokenizer.json")
        classifier = load_classifier(checkpoint, dtype=self.dtype, device=self.device)
        self.scorer = PairScorer(classifier, device=self.device, batch_tokens=self.batch_tokens)
        self._words = classifier.words
        limit = classifier.max_length
        self.max_length, self.query_max_length = self.tokenizer.lengths(max_length, query_max_length, limit=limit)

    def compute_score(self, pairs: Sequence[TextPair], *, progress: Progress | None = None) -> Scores:
        """How relevant each passage is to its question.

        Args:
            pairs: (question, passage), any number; either may be empty.
            progress: Called with the number of pairs done since the last call.

        Returns:
            `(n,)` float32 in the order given: logits, or probabilities with `normalize`.

        Raises:
            InputError: If `pairs` is one pair, or holds something that is none.
            ModelError: If one pair alone does not fit in memory, a score is no number, or the network has no vector for
                a token.
        """
        return self._reported(self._logits(pairs, progress=progress))

    def _logits(self, pairs: Sequence[TextPair], *, progress: Progress | None = None) -> Scores:
        require_pairs(pairs)
        scores = np.empty(len(pairs), np.float32)
        cut = 0
        for start, window in self._windows(pairs):
            cut += window.cut
            for rows, found in self.scorer.run(window.pairs):
                scores[start + rows] = found
                if progress is not None:
                    progress(len(rows))
        self._tell(cut, len(pairs))
        return scores

    def _reported(self, logits: Scores) -> Scores:
        return expit(logits) if self.normalize else logits

    def rerank(self, query: str, hits: Sequence[Hit], *, k: int | None = None) -> list[Hit]:
        """Order hits by the scores of the query with their chunks' text, headings before it.

        See `m3rag.reranking.Reranker.rerank`.
        """
        require_rerankable(query, k)
        looked_at = hits[: self.top_n]
        # Each text once: at two places of a batch its scores may differ in the last digit, and would be no tie.
        places: dict[str, int] = {}
        rows = [places.setdefault(hit.chunk.encoded_text, len(places)) for hit in looked_at]
        logits = self._logits([(query, text) for text in places])[rows]
        return reordered(hits, logits, k=k, reported=self._reported(logits))

    def _windows(self, pairs: Sequence[TextPair]) -> Iterator[tuple[int, TokenizedPairs]]:
        """Tokenised pairs, a window at a time while the one before is computed: (its first pair's number, pairs)."""
        characters = WINDOW_BATCHES * self.batch_tokens * CHARACTERS_PER_TOKEN
        return lookahead((start, self._tokenized(stretch)) for start, stretch in windows(pairs, characters=characters))

    def _tokenized(self, pairs: Sequence[TextPair]) -> TokenizedPairs:
        found = self.tokenizer.encode(pairs, query_max_length=self.query_max_length, max_length=self.max_length)
        last = max((int(pair.ids.max()) for pair in found.pairs), default=0)
        if last >= self._words:  # which a GPU would not tell, but fail for good
            raise ModelError(
                f"the tokenizer.json of {self.model!r} has the token {self.tokenizer.token(last)!r} with id {last}, "
                f"its weights end at id {self._words - 1}: save the tokenizer and the weights of one model"
            )
        return found

    def _tell(self, cut: int, pairs: int) -> None:
        if cut:
            self.truncated_pairs += cut
            log.warning(
                "%d of %d pairs are longer than max_length=%d tokens (of which the question has %d at most) and were "
                "cut; chunk the passages, or raise max_length",
                cut,
                pairs,
                self.max_length,
                self.query_max_length,
            )
