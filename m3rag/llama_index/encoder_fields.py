"""What the embeddings share: the model's settings as fields, loading it, and pickling without it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from m3rag.errors import InputError

if TYPE_CHECKING:
    from typing import Self

    from m3rag.encoder.protocol import Encoder
    from m3rag.encoder.shared import SharedEncoder
else:
    # pydantic resolves the annotation when the class is made, and torch takes seconds to import.
    SharedEncoder = Any

_OPTIONS = ("device", "dtype", "max_length", "batch_tokens", "cache_folder", "local_files_only")

_LOADING = threading.Lock()


class EncoderFields(BaseModel):
    """The settings of an encoder, which is loaded by them or shared; see `M3Embedding` for each."""

    # A misspelt field must not mean the default model, nor a token in the wrong place stand in a log.
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    model_name: str = Field(default="BAAI/bge-m3", description="`mini`, a hub id, or a checkpoint folder.")
    device: str | None = Field(default=None, description="As torch names it.")
    dtype: str | None = Field(default=None, description="`float32`, `float16` or `bfloat16`.")
    max_length: int | None = Field(default=None, description="Most tokens of a text.")
    batch_tokens: int | None = Field(default=None, description="Most tokens of one forward pass.")
    cache_folder: str | None = Field(default=None, description="Where models from the hub are kept.")
    local_files_only: bool = Field(default=False, description="Never ask the hub.")
    # The more texts at once, the less padding: the base class's 10 are for services with limits.
    embed_batch_size: int = Field(default=64, description="Texts handed to the model at once.", gt=0, le=2048)

    _encoder: SharedEncoder | None = PrivateAttr(default=None)

    def __init__(self, *, encoder: Encoder | None = None, **fields: Any) -> None:
        """Load the model, or share one already loaded.

        Args:
            encoder: A loaded model, whose settings become the fields. It is no field itself.
            **fields: The attributes above, and those of the base class.
        """
        given = None
        if encoder is not None:
            from m3rag.encoder.shared import shared  # noqa: PLC0415

            given = shared(encoder)
            fields = {**fields, **_settings(given, fields)}
        super().__init__(**fields)
        self._encoder = given
        self._loaded()

    def _loaded(self) -> SharedEncoder:
        if self._encoder is not None:
            return self._encoder
        with _LOADING:
            if self._encoder is None:
                # Imported here: torch takes seconds.
                from m3rag.encoder.loaded import loaded  # noqa: PLC0415

                self._encoder = loaded(self.model_name, **{name: getattr(self, name) for name in _OPTIONS})
            return self._encoder

    def __getstate__(self) -> dict[str, Any]:
        """The settings without the weights: the base class would pickle these to see whether it can."""
        if self._encoder is not None:
            from m3rag.encoder.shared import require_reloadable  # noqa: PLC0415

            require_reloadable(self._encoder, owner=type(self).__name__)
        light = self.model_copy()
        light._encoder = None
        return super(EncoderFields, light).__getstate__()

    def __setstate__(self, state: dict[Any, Any]) -> None:
        """Restore the settings; not through `__init__` as the base class does, which would load the model."""
        dropped = {
            name: field.get_default(call_default_factory=True)
            for name, field in type(self).model_fields.items()
            if name not in state["__dict__"]
        }
        BaseModel.__setstate__(self, {**state, "__dict__": {**dropped, **state["__dict__"]}})

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """A copy that shares the model."""
        return self.model_copy()


def _settings(encoder: SharedEncoder, given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that would load a shared encoder again, as after unpickling."""
    from m3rag.encoder.shared import reload_options  # noqa: PLC0415

    contradicting = sorted(given.keys() & {"model_name", *_OPTIONS})
    if contradicting:
        raise InputError(f"encoder is already loaded: leave out {', '.join(contradicting)}")
    return {"model_name": encoder.info.name, **(reload_options(encoder) or {})}
