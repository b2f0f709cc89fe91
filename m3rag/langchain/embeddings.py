"""M3Embeddings: the dense leg of M3 for LangChain, with the arguments of HuggingFaceEmbeddings."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from langchain_core.embeddings import Embeddings
from rich.console import Console
from rich.progress import Progress

from m3rag.langchain.model import ModelHolder, listed

if TYPE_CHECKING:
    from m3rag.encoder.inputs import Role


class M3Embeddings(ModelHolder, Embeddings):
    """Dense vectors of an M3 model; takes the place of HuggingFaceEmbeddings by its name alone.

    Setup:
        ```bash
        pip install "m3rag[langchain]"
        ```

    Instantiate:
        ```python
        from m3rag.langchain import M3Embeddings

        embeddings = M3Embeddings(model_name="BAAI/bge-m3", model_kwargs={"device": "cpu"})
        embeddings = M3Embeddings(model="mini")  # embedded in m3rag, no download
        embeddings = M3Embeddings(encoder=knowledge_base.encoder)  # share a model already loaded
        ```

    Use:
        ```python
        vectors = embeddings.embed_documents(["Ducks swim.", "Les canards nagent."])
        vector = embeddings.embed_query("What do ducks do?")
        vector = await embeddings.aembed_query("What do ducks do?")
        ```

    The model is loaded when the object is made. Vectors have unit length, whatever
    `normalize_embeddings` says: M3 is trained that way. Asynchronous calls run on threads and the
    forward pass is locked, so one object may serve many tasks. A pickle holds the settings, not
    the weights, which load again on first use. A `CachedEncoder` or an encoder of other
    models may be shared too; what cannot be loaded again by its name alone is not pickled.

    Attributes:
        model_name: `mini`, a hub id, or a checkpoint folder. `model` is another name for it.
        cache_folder: Where models from the hub are kept.
        model_kwargs: `device`, `dtype` (or, as HuggingFaceEmbeddings has it, `{"model_kwargs":
            {"torch_dtype": ...}}`), `max_length`, `batch_tokens`, `local_files_only`.
            `trust_remote_code` is accepted and never needed.
        encode_kwargs: `batch_size`, the most texts of one forward pass (a budget of tokens bounds it
            in any case), and `normalize_embeddings`.
        query_encode_kwargs: The same for questions.
        multi_process: Must be False.
        show_progress: Show a bar on stderr while documents are embedded.
        encoder: A loaded model to share; left out when the object is serialised.

    Raises:
        ValidationError: (a ValueError) If an argument is unknown or cannot be used.
        ModelError: If the model cannot be had.
        ConfigurationError: If an option is out of range for the model.
    """

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed passages.

        Args:
            texts: Any number of strings, which may come from a generator; empty ones are allowed.

        Returns:
            A unit vector of Python floats for each text, in order.

        Raises:
            InputError: If `texts` is one string, or holds something that is no string.
        """
        vectors: list[list[float]] = self._embed(texts, "document", self.encode_kwargs).tolist()
        return vectors

    def embed_query(self, text: str) -> list[float]:
        """Embed a question: a unit vector of Python floats.

        Raises:
            InputError: If `text` is no string.
        """
        vector: list[float] = self._embed([text], "query", self.query_encode_kwargs or self.encode_kwargs)[0].tolist()
        return vector

    def _embed(self, texts: list[str], role: Role, kwargs: Mapping[str, Any]) -> npt.NDArray[np.float32]:
        """Dense vectors `(n, d)`, at most `batch_size` texts in a forward pass."""
        encoder = self.loaded()
        texts = listed(texts)
        size = kwargs.get("batch_size") or max(len(texts), 1)
        # Texts of like length share a batch, so that little of it is padding.
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        vectors = np.empty((len(texts), encoder.info.dense_dim), np.float32)
        bar = Progress(console=Console(stderr=True)) if self.show_progress and role == "document" else None
        with bar or nullcontext():
            task = bar.add_task("Embedding", total=len(texts)) if bar else None

            def advance(done: int) -> None:
                if bar is not None and task is not None:
                    bar.advance(task, done)

            for start in range(0, len(order), size):
                rows = order[start : start + size]
                vectors[rows] = encoder.encode_dense([texts[i] for i in rows], role=role, progress=advance)
        return vectors
