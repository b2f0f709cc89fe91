"""M3Embeddings: the dense leg of M3 for LangChain, with the arguments of HuggingFaceEmbeddings."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from langchain_core.embeddings import Embeddings
from pydantic import BaseModel, ConfigDict, Field, field_validator
from rich.console import Console
from rich.progress import Progress

from m3rag.encoder.inputs import require_texts
from m3rag.errors import InputError

if TYPE_CHECKING:
    from typing_extensions import Self

    from m3rag.encoder.inputs import Role
    from m3rag.encoder.shared import SharedEncoder
else:
    # pydantic resolves the annotation when the class is made, and torch takes seconds to import.
    SharedEncoder = Any

DEFAULT_MODEL = "BAAI/bge-m3"

_MODEL_KEYS = ("device", "dtype", "max_length", "batch_tokens", "local_files_only", "trust_remote_code", "model_kwargs")
_NESTED_MODEL_KEYS = ("dtype", "torch_dtype")
_ENCODE_KEYS = ("batch_size", "normalize_embeddings")
_REMEDIES = {
    "prompt": "leave it out: questions and passages get the prefixes that the model was trained with",
    "prompt_name": "leave it out: questions and passages get the prefixes that the model was trained with",
    "truncate_dim": "leave it out: M3 was not trained to be cut short",
    "show_progress_bar": "give M3Embeddings(show_progress=True)",
    "cache_folder": "give M3Embeddings(cache_folder=...)",
    "revision": "fetch it with `hf download --revision` and give the folder as model_name",
    "token": "set HF_TOKEN in the environment",
}

_LOADING = threading.Lock()


class M3Embeddings(BaseModel, Embeddings):
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

    model_config = ConfigDict(extra="forbid", protected_namespaces=(), populate_by_name=True)

    model_name: str = Field(default=DEFAULT_MODEL, alias="model")
    cache_folder: str | None = None
    model_kwargs: dict[str, Any] = Field(default_factory=dict)
    encode_kwargs: dict[str, Any] = Field(default_factory=dict)
    query_encode_kwargs: dict[str, Any] = Field(default_factory=dict)
    multi_process: bool = False
    show_progress: bool = False
    encoder: SharedEncoder | None = Field(default=None, exclude=True, repr=False)

    @field_validator("model_kwargs")
    @classmethod
    def _known_model_kwargs(cls, kwargs: dict[str, Any]) -> dict[str, Any]:
        _require_known("model_kwargs", kwargs, _MODEL_KEYS)
        nested = kwargs.get("model_kwargs") or {}
        _require_known("model_kwargs['model_kwargs']", nested, _NESTED_MODEL_KEYS)
        if len(nested) + ("dtype" in kwargs) > 1:
            raise ValueError("model_kwargs give the dtype more than once: keep model_kwargs={'dtype': ...}")
        return kwargs

    @field_validator("encode_kwargs", "query_encode_kwargs")
    @classmethod
    def _known_encode_kwargs(cls, kwargs: dict[str, Any]) -> dict[str, Any]:
        _require_known("encode_kwargs", kwargs, _ENCODE_KEYS)
        size = kwargs.get("batch_size", 1)
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise ValueError(f"batch_size must be a whole number from 1, got {size!r}")
        return kwargs

    @field_validator("multi_process")
    @classmethod
    def _one_process(cls, value: bool) -> bool:
        if value:
            raise ValueError(
                "multi_process=True is not supported: leave it out, or run one process a device with "
                "model_kwargs={'device': 'cuda:0'} and so on"
            )
        return value

    def model_post_init(self, _: Any) -> None:
        """Load the model, or take over the settings of the one given."""
        if self.encoder is None:
            self._loaded()
        else:
            self._adopt(self.encoder)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed passages.

        Args:
            texts: Any number of strings; empty ones are allowed.

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
        encoder = self._loaded()
        require_texts(texts)
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

    def _loaded(self) -> SharedEncoder:
        if self.encoder is not None:
            return self.encoder
        with _LOADING:
            if self.encoder is None:
                # Imported here: torch takes seconds.
                from m3rag.encoder.encoder import M3Encoder as Encoder  # noqa: PLC0415

                kwargs = dict(self.model_kwargs)
                kwargs.pop("trust_remote_code", None)  # nothing of a model but its numbers is ever read
                for dtype in (kwargs.pop("model_kwargs", None) or {}).values():
                    kwargs["dtype"] = dtype
                if kwargs.get("dtype") is not None:
                    kwargs["dtype"] = str(kwargs["dtype"]).removeprefix("torch.")
                self.encoder = Encoder(self.model_name, cache_folder=self.cache_folder, **kwargs)
            return self.encoder

    def _adopt(self, encoder: SharedEncoder) -> None:
        from m3rag.encoder.shared import reload_options, require_encoder  # noqa: PLC0415

        require_encoder(encoder)
        given = self.model_fields_set & {"model_name", "cache_folder", "model_kwargs"}
        if given:
            raise InputError(f"encoder is already loaded: leave out {', '.join(sorted(given))}")
        self.model_name = encoder.info.name
        self.model_kwargs = reload_options(encoder) or {}

    def __getstate__(self) -> dict[Any, Any]:
        """The settings without the weights: locks cannot be pickled, and the weights are on disk."""
        if self.encoder is not None:
            from m3rag.encoder.shared import require_reloadable  # noqa: PLC0415

            require_reloadable(self.encoder, owner=type(self).__name__)
        state = super().__getstate__()
        return {**state, "__dict__": {**state["__dict__"], "encoder": None}}

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """A copy that shares the model."""
        return self.model_copy()


def _require_known(where: str, kwargs: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for key in kwargs:
        if key not in known:
            remedy = _REMEDIES.get(key)
            raise ValueError(
                f"{where} holds {key!r}, which M3Embeddings cannot honour: "
                + (f"{remedy}. " if remedy else "")
                + f"Allowed are {', '.join(known)}"
            )
