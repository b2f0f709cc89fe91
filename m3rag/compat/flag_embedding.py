"""FlagEmbedding's `BGEM3FlagModel` on m3rag's encoder."""

# ruff: noqa: PLR0917 - the reference takes its arguments by position

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch

from m3rag.compat.flag_scores import (
    LexicalWeights,
    lexical_matching_scores,
    mode_weights,
    readable,
    score_columns,
    score_pairs,
)
from m3rag.encoder.checkpoint import Pooling
from m3rag.encoder.device import Device, choose_device, device_name
from m3rag.encoder.encoder import M3Encoder
from m3rag.encoder.inputs import Role, require_texts, require_whole
from m3rag.errors import ConfigurationError, InputError
from m3rag.output import FloatArray, M3Output
from m3rag.scoring import max_similarities

Encoded = dict[str, Any]
"""`dense_vecs`, `lexical_weights` and `colbert_vecs`; None for what was not asked for."""


class BGEM3FlagModel:
    """`FlagEmbedding.BGEM3FlagModel` (1.4.2): the same arguments, defaults, methods and results.

    Numbers agree within 1e-5 in float32. Where the reference fails, this does what was meant:

    - no texts give empty results, no pairs give empty lists of scores (there: an exception, `[]`);
    - a text of any length is cut to `max_length`, and a `max_length` beyond the model's limit (8192
      tokens for BGE-M3) is that limit (there: an exception);
    - ColBERT scores of `compute_score` may be negative, and depend on their pair alone (there, in a
      batch, on the padding of the longer passages too);
    - `convert_id_to_token` keeps the larger weight where two tokens read the same (there: the last).

    What differs on purpose: by default one GPU is used, not all; no progress bars; lexical weights are
    in order of token id; a list in place of a text is refused (there its two texts are encoded as one, apart by
    `</s></s>`). `.encoder` takes the place of `.model` and `.tokenizer`.

    Args:
        model_name_or_path: A hub id, a checkpoint folder, or `mini`.
        normalize_embeddings: Give dense and ColBERT vectors unit length.
        use_fp16: float16, where the device is no CPU; dense vectors and lexical weights are given out
            in float16 then, too.
        use_bf16: bfloat16, where the device is no CPU; comes before `use_fp16`.
        query_instruction_for_retrieval: Put before each text of `encode_queries`. Its tokens count
            like those of the text, as in the reference.
        query_instruction_format: How: the first `{}` is the instruction, the second the text.
        devices: Such as `"cpu"`, `"cuda:1"`, `1` or `["cuda:0", "cuda:1"]`; by default a GPU if there is
            one, else the CPU. Several have a worker process each, so that a script keeps its work under
            `if __name__ == "__main__":`, as with the reference.
        pooling_method: `cls`, `mean` or `last_token`; by default what the checkpoint says, which is
            `cls` for every checkpoint that the reference reads.
        trust_remote_code: Must be False: m3rag runs no code of a checkpoint.
        cache_dir: Where models from the hub are kept.
        colbert_dim: Must be that of the checkpoint; -1 takes it as it is.
        batch_size: Texts, or pairs, whose ColBERT vectors are held at once. A hint about memory:
            batches of the forward pass are planned by tokens, and no result depends on it.
        query_max_length: Tokens beyond which `encode_queries` cuts.
        passage_max_length: Tokens beyond which `encode` and `encode_corpus` cut.
        return_dense: Whether `encode` and its like give dense vectors.
        return_sparse: Whether they give lexical weights.
        return_colbert_vecs: Whether they give ColBERT vectors.
        truncate_dim: Keep so many leading dimensions of dense and ColBERT vectors that are given out;
            scores of `compute_score` are of whole vectors, as in the reference.
        passage_instruction_for_retrieval: Put before each text of `encode_corpus`.
        passage_instruction_format: As `query_instruction_format`.
        convert_to_numpy: Accepted and ignored, as by the reference: results are arrays.

    Raises:
        ModelError: If the model cannot be had or loaded.
        ConfigurationError: If an argument cannot be honoured.
    """

    def __init__(
        self,
        model_name_or_path: str,
        normalize_embeddings: bool = True,
        use_fp16: bool = True,
        use_bf16: bool = False,
        query_instruction_for_retrieval: str | None = None,
        query_instruction_format: str = "{}{}",
        devices: Device | Sequence[Device] | None = None,
        pooling_method: str | None = None,
        trust_remote_code: bool = False,
        cache_dir: str | None = None,
        colbert_dim: int = -1,
        batch_size: int = 256,
        query_max_length: int = 512,
        passage_max_length: int = 512,
        return_dense: bool = True,
        return_sparse: bool = False,
        return_colbert_vecs: bool = False,
        truncate_dim: int | None = None,
        *,
        passage_instruction_for_retrieval: str | None = None,
        passage_instruction_format: str = "{}{}",
        convert_to_numpy: bool = True,
    ) -> None:
        if trust_remote_code:
            raise ConfigurationError("trust_remote_code=True cannot be honoured: m3rag runs no code of a checkpoint")
        if truncate_dim is not None:
            require_whole("truncate_dim", truncate_dim, least=1)
        named = _names(devices)
        on_cpu = named[0].startswith("cpu")
        self.encoder = M3Encoder(
            model_name_or_path,
            device=named,
            dtype="float32" if on_cpu else "bfloat16" if use_bf16 else "float16" if use_fp16 else "float32",
            colbert_dtype="float32",
            pooling=cast("Pooling | None", pooling_method),
            normalize=normalize_embeddings,
            cache_folder=cache_dir,
        )
        if colbert_dim > 0 and colbert_dim != self.encoder.info.colbert_dim:
            raise ConfigurationError(
                f"colbert_dim={colbert_dim}, but the token vectors of {model_name_or_path} have "
                f"{self.encoder.info.colbert_dim} dimensions: leave it out"
            )
        self.model_name_or_path = model_name_or_path
        self.normalize_embeddings = normalize_embeddings
        self.use_fp16 = use_fp16
        self.use_bf16 = use_bf16
        self.query_instruction_for_retrieval = query_instruction_for_retrieval
        self.query_instruction_format = query_instruction_format
        self.passage_instruction_for_retrieval = passage_instruction_for_retrieval
        self.passage_instruction_format = passage_instruction_format
        self.target_devices = named
        self.pooling_method = self.encoder.recipe.pooling
        self.batch_size = batch_size
        self.query_max_length = query_max_length
        self.passage_max_length = passage_max_length
        self.return_dense = return_dense
        self.return_sparse = return_sparse
        self.return_colbert_vecs = return_colbert_vecs
        self.truncate_dim = truncate_dim
        half = self.encoder.dtype == torch.float16
        self._lexical_dtype = np.dtype(np.float16 if half else np.float32)
        # The reference's mean runs in float32 whatever the model runs in.
        self._dense_dtype = np.dtype(np.float32 if self.pooling_method == "mean" else self._lexical_dtype)

    def encode_queries(
        self,
        queries: str | Sequence[str],
        batch_size: int | None = None,
        max_length: int | None = None,
        return_dense: bool | None = None,
        return_sparse: bool | None = None,
        return_colbert_vecs: bool | None = None,
        *,
        convert_to_numpy: bool = True,
    ) -> Encoded:
        """Encode questions, with their instruction if there is one.

        Args:
            queries: One string, or a list of any number of them.
            batch_size: As the constructor's; likewise the next three.
            max_length: By default `query_max_length`.
            return_dense: Whether to give `dense_vecs`.
            return_sparse: Whether to give `lexical_weights`.
            return_colbert_vecs: Whether to give `colbert_vecs`.
            convert_to_numpy: Ignored.

        Returns:
            `dense_vecs`: `(n, d)`. `lexical_weights`: a dict `{str(token_id): weight}` a text.
            `colbert_vecs`: an array `(tokens, c)` a text, float32. None for what was not asked for. For
            one string the first and only of each.

        Raises:
            InputError: If it is neither, or a text is no string.
            ConfigurationError: If nothing is asked for, or an argument is out of range.
        """
        return self._encode(
            _instructed(queries, self.query_instruction_for_retrieval, self.query_instruction_format),
            "query",
            batch_size,
            self.query_max_length if max_length is None else max_length,
            (return_dense, return_sparse, return_colbert_vecs),
        )

    def encode_corpus(
        self,
        corpus: str | Sequence[str],
        batch_size: int | None = None,
        max_length: int | None = None,
        return_dense: bool | None = None,
        return_sparse: bool | None = None,
        return_colbert_vecs: bool | None = None,
        *,
        convert_to_numpy: bool = True,
    ) -> Encoded:
        """Encode passages, with their instruction if there is one; else as `encode_queries`."""
        return self.encode(
            corpus,
            batch_size,
            max_length,
            return_dense,
            return_sparse,
            return_colbert_vecs,
            instruction=self.passage_instruction_for_retrieval,
            instruction_format=self.passage_instruction_format,
        )

    def encode(
        self,
        sentences: str | Sequence[str],
        batch_size: int | None = None,
        max_length: int | None = None,
        return_dense: bool | None = None,
        return_sparse: bool | None = None,
        return_colbert_vecs: bool | None = None,
        *,
        instruction: str | None = None,
        instruction_format: str = "{}{}",
        convert_to_numpy: bool = True,
    ) -> Encoded:
        """Encode texts as they are; else as `encode_queries`.

        Args:
            sentences: One string, or a list of any number of them.
            batch_size: As `encode_queries`.
            max_length: By default `passage_max_length`.
            return_dense: Whether to give `dense_vecs`.
            return_sparse: Whether to give `lexical_weights`.
            return_colbert_vecs: Whether to give `colbert_vecs`.
            instruction: Put before each text.
            instruction_format: How; as `query_instruction_format`.
            convert_to_numpy: Ignored.
        """
        return self._encode(
            _instructed(sentences, instruction, instruction_format),
            "document",
            batch_size,
            self.passage_max_length if max_length is None else max_length,
            (return_dense, return_sparse, return_colbert_vecs),
        )

    def compute_score(
        self,
        sentence_pairs: Sequence[Sequence[str]] | Sequence[str],
        batch_size: int | None = None,
        max_query_length: int | None = None,
        max_passage_length: int | None = None,
        weights_for_different_modes: Sequence[float] | None = None,
    ) -> dict[str, Any]:
        """Score pairs of a question and a passage in all modes.

        Args:
            sentence_pairs: One pair of strings, or any number of pairs.
            batch_size: As the constructor's.
            max_query_length: By default `query_max_length`.
            max_passage_length: By default `passage_max_length`.
            weights_for_different_modes: Of dense, sparse and ColBERT, in this order; equal by default.

        Returns:
            A list of scores for each of `colbert`, `sparse`, `dense`, `sparse+dense` and
            `colbert+sparse+dense`, for one pair a number each. The last two are the weighted sums,
            divided by the sum of their weights; NaN where these are all 0.

        Raises:
            InputError: If a pair is not two strings.
            ConfigurationError: If the weights are not three numbers >= 0, not all 0.
        """
        one = len(sentence_pairs) > 0 and isinstance(sentence_pairs[0], str)
        pairs = cast("list[tuple[str, str]]", [sentence_pairs] if one else list(sentence_pairs))
        for i, pair in enumerate(pairs):
            if not (
                isinstance(pair, list | tuple | np.ndarray)
                and len(pair) == 2
                and all(isinstance(text, str) for text in pair)
            ):
                raise InputError(f"pair {i} must be a question and a passage, got {pair!r:.60}")
        weights = mode_weights(weights_for_different_modes)
        step = self._step(batch_size)
        lengths = (
            self.query_max_length if max_query_length is None else max_query_length,
            self.passage_max_length if max_passage_length is None else max_passage_length,
        )
        rows = [self._score(pairs[start : start + step], *lengths) for start in range(0, len(pairs), step)]
        scores = score_columns(np.concatenate([np.zeros((0, 3)), *rows]), weights)
        return {name: values[0] if one else values for name, values in scores.items()}

    def compute_lexical_matching_score(
        self,
        lexical_weights_1: LexicalWeights | Sequence[LexicalWeights],
        lexical_weights_2: LexicalWeights | Sequence[LexicalWeights],
    ) -> Any:
        """Sums over shared tokens of the product of weights.

        Args:
            lexical_weights_1: Of one text, or of `n`.
            lexical_weights_2: Of one text, or of `m`.

        Returns:
            A number for two texts, an array `(n, m)` for two lists.

        Raises:
            InputError: If one is a text's and the other a list.
        """
        return lexical_matching_scores(lexical_weights_1, lexical_weights_2)

    def colbert_score(self, q_reps: FloatArray, p_reps: FloatArray) -> torch.Tensor:
        """The mean over the question's token vectors `(q, c)` of the best product with the passage's `(p, c)`."""
        return torch.tensor(max_similarities(q_reps, p_reps).mean())

    def convert_id_to_token(self, lexical_weights: LexicalWeights | Sequence[LexicalWeights]) -> Any:
        """Lexical weights by readable token instead of by id.

        Args:
            lexical_weights: Of one text, or of several.

        Returns:
            A dict for one text, also in a list of one, else a list of dicts.
        """
        texts = [lexical_weights] if isinstance(lexical_weights, Mapping) else lexical_weights
        converted = [readable(weights, self.encoder.token) for weights in texts]
        return converted[0] if len(converted) == 1 else converted

    def stop_self_pool(self) -> None:
        """Stop the processes of several devices, which a later call starts again, and free unused GPU memory."""
        self.encoder.close()
        if self.encoder.device.type == "cuda":
            torch.cuda.empty_cache()

    def _encode(
        self,
        texts: str | list[str],
        role: Role,
        batch_size: int | None,
        max_length: int,
        returned: tuple[bool | None, bool | None, bool | None],
    ) -> Encoded:
        one = isinstance(texts, str)
        listed = [texts] if isinstance(texts, str) else texts
        defaults = (self.return_dense, self.return_sparse, self.return_colbert_vecs)
        wants_dense, wants_sparse, wants_colbert = (
            default if asked is None else asked for asked, default in zip(returned, defaults, strict=True)
        )
        if not (wants_dense or wants_sparse or wants_colbert):
            raise ConfigurationError("set one of return_dense, return_sparse and return_colbert_vecs to True")
        length = self._length(max_length)
        step = self._step(batch_size)
        encode = self.encoder.encode_queries if role == "query" else self.encoder.encode_documents
        dense, sparse, colbert = [], [], []
        for start in range(0, max(len(listed), 1), step):
            some = listed[start : start + step]
            if wants_sparse or wants_colbert:
                output = encode(some, max_length=length)
                dense.append(output.dense)
                sparse += self._lexical_weights(output) if wants_sparse else []
                colbert += [self._cut(output.colbert_of(i)) for i in range(len(some))] if wants_colbert else []
            else:
                dense.append(self.encoder.encode_dense(some, role=role, max_length=length))
        found = {
            "dense_vecs": self._cut(np.concatenate(dense)).astype(self._dense_dtype, copy=False)
            if wants_dense
            else None,
            "lexical_weights": sparse if wants_sparse else None,
            "colbert_vecs": colbert if wants_colbert else None,
        }
        return {key: values[0] if one and values is not None else values for key, values in found.items()}

    def _score(self, pairs: Sequence[Sequence[str]], query_length: int, passage_length: int) -> FloatArray:
        """`score_pairs` of some pairs; a text in several pairs is encoded once."""
        queries, passages = (
            {text: i for i, text in enumerate(dict.fromkeys(side))} for side in zip(*pairs, strict=True)
        )
        return score_pairs(
            self.encoder.encode_queries(list(queries), max_length=self._length(query_length)),
            self.encoder.encode_documents(list(passages), max_length=self._length(passage_length)),
            [(queries[query], passages[passage]) for query, passage in pairs],
        )

    def _lexical_weights(self, output: M3Output) -> list[dict[str, Any]]:
        csr = output.lexical
        weights = csr.data.astype(self._lexical_dtype)
        return [
            defaultdict(int, zip(map(str, csr.indices[start:end].tolist()), weights[start:end], strict=True))
            for start, end in zip(csr.indptr[:-1].tolist(), csr.indptr[1:].tolist(), strict=True)
        ]

    def _cut(self, vectors: FloatArray) -> FloatArray:
        if self.truncate_dim is None or self.truncate_dim >= vectors.shape[1]:
            return vectors
        kept = vectors[:, : self.truncate_dim]
        return (
            kept / np.maximum(np.linalg.norm(kept, axis=1, keepdims=True), 1e-12) if self.normalize_embeddings else kept
        )

    def _length(self, max_length: int) -> int:
        return min(require_whole("max_length", max_length), self.encoder.max_length)

    def _step(self, batch_size: int | None) -> int:
        return require_whole("batch_size", self.batch_size if batch_size is None else batch_size, least=1)


def _names(devices: Device | Sequence[Device] | None) -> list[str]:
    """Devices as torch names them."""
    if devices is None:
        return [str(choose_device(None))]
    several = [devices] if isinstance(devices, str) or not isinstance(devices, Sequence) else [*devices]
    if not several:
        raise ConfigurationError("devices is an empty list: name the devices, or leave it out")
    return [device_name(one) for one in several]


def _instructed(texts: str | Sequence[str], instruction: str | None, form: str) -> str | list[str]:
    r"""The texts with their instruction; a `\n` that a shell or a YAML file left in the format is a line break."""
    require_texts([texts] if isinstance(texts, str) else texts)
    if instruction is None:
        return texts if isinstance(texts, str) else list(texts)
    form = form.replace("\\n", "\n")
    return form.format(instruction, texts) if isinstance(texts, str) else [form.format(instruction, t) for t in texts]
