"""The model behind LangChain's classes of embeddings, with the arguments of HuggingFaceEmbeddings."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from numbers import Integral
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from m3rag.encoder.inputs import require_texts
from m3rag.errors import InputError

if TYPE_CHECKING:
    from typing import Self

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
    "show_progress_bar": "give {owner}(show_progress=True)",
    "cache_folder": "give {owner}(cache_folder=...)",
    "revision": "fetch it with `hf download --revision` and give the folder as model_name",
    "token": "set HF_TOKEN in the environment",
}

_LOADING = threading.Lock()


class ModelHolder(BaseModel):
    """A model, loaded by its name or shared; `M3Embeddings` says what each field means."""

    # Without the input in errors: who gives a key in the wrong place should not find it in a log.
    model_config = ConfigDict(extra="forbid", protected_namespaces=(), populate_by_name=True, hide_input_in_errors=True)

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
        _require_known(cls, "model_kwargs", kwargs, _MODEL_KEYS)
        nested = kwargs.get("model_kwargs") or {}
        _require_known(cls, "model_kwargs['model_kwargs']", nested, _NESTED_MODEL_KEYS)
        if len(nested) + ("dtype" in kwargs) > 1:
            raise ValueError("model_kwargs give the dtype more than once: keep model_kwargs={'dtype': ...}")
        return kwargs

    @field_validator("encode_kwargs", "query_encode_kwargs")
    @classmethod
    def _known_encode_kwargs(cls, kwargs: dict[str, Any]) -> dict[str, Any]:
        _require_known(cls, "encode_kwargs", kwargs, _ENCODE_KEYS)
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
            self.loaded()
        else:
            self._adopt(self.encoder)

    def loaded(self) -> SharedEncoder:
        """The encoder, loaded again after unpickling."""
        if self.encoder is not None:
            return self.encoder
        with _LOADING:
            if self.encoder is None:
                # Imported here: torch takes seconds.
                from m3rag.encoder.loaded import loaded  # noqa: PLC0415

                kwargs = dict(self.model_kwargs)
                kwargs.pop("trust_remote_code", None)  # nothing of a model but its numbers is ever read
                for dtype in (kwargs.pop("model_kwargs", None) or {}).values():
                    kwargs["dtype"] = dtype
                if kwargs.get("dtype") is not None:
                    kwargs["dtype"] = str(kwargs["dtype"]).removeprefix("torch.")
                self.encoder = loaded(self.model_name, cache_folder=self.cache_folder, **kwargs)
            return self.encoder

    def _adopt(self, encoder: SharedEncoder) -> None:
        from m3rag.encoder.shared import reload_options, shared  # noqa: PLC0415

        self.encoder = encoder = shared(encoder)
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


def listed(texts: Iterable[str]) -> list[str]:
    """A list of the texts that are given, by a generator perhaps.

    Raises:
        InputError: If it is one string or no collection, or holds something that is no string.
    """
    if not isinstance(texts, Iterable):
        raise InputError(f"texts is a {type(texts).__name__}, must be a list of strings")
    found = texts if isinstance(texts, str) else list(texts)
    require_texts(found)
    return list(found)


def whole(name: str, number: Any) -> int:
    """A whole number, which may be one of numpy's.

    Raises:
        InputError: If it is none.
    """
    if isinstance(number, bool) or not isinstance(number, Integral):
        raise InputError(f"{name} must be a whole number, got {number!r}")
    return int(number)


def _require_known(kind: type[ModelHolder], where: str, kwargs: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for key in kwargs:
        if key not in known:
            remedy = _REMEDIES.get(key)
            raise ValueError(
                f"{where} holds {key!r}, which {kind.__name__} cannot honour: "
                + (f"{remedy.format(owner=kind.__name__)}. " if remedy else "")
                + f"Allowed are {', '.join(known)}"
            )
