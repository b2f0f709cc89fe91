"""What a model gives is refused where it is no number: no store can search it, and no error would tell of it later."""

from __future__ import annotations

import numpy as np

from m3rag.errors import ModelError
from m3rag.output import FloatArray


def require_finite(model: str, *parts: FloatArray) -> None:
    """Refuse infinities and NaN.

    Raises:
        ModelError: If there is one in a part; the model is named.
    """
    if not all(map(_is_finite, parts)):
        raise ModelError(
            f"{model} gave an infinity or NaN, which no store can search: compute in float32 (dtype='float32', or the "
            "like option of the server); if it does already, its weights are damaged: fetch them again"
        )


def _is_finite(array: FloatArray) -> bool:
    # By its bits, as they sort from infinity on: numpy's own test takes thirty times as long for float16.
    signed, unsigned = (f"{kind}{array.itemsize}" for kind in "iu")
    most, least = (np.array(sign * np.inf, array.dtype) for sign in (1, -1))
    return bool(
        array.view(signed).max(initial=0) < most.view(signed)
        and array.view(unsigned).max(initial=0) < least.view(unsigned)
    )
