"""What every encoder takes: texts, their role, and whom to tell how far it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from typing import Literal, get_args

from m3rag.errors import ConfigurationError, InputError

Role = Literal["query", "document"]
Progress = Callable[[int], None]
"""Called with the number of texts that a finished batch held."""


def require_texts(texts: Sequence[str]) -> None:
    """Refuse what is no list of strings.

    Raises:
        InputError: It names the first text that is none, or the one string given for a list.
    """
    if isinstance(texts, str):
        raise InputError(f"texts must be a list of strings, got one string: {texts[:40]!r}; put it in a list")
    if not (hasattr(texts, "__len__") and hasattr(texts, "__getitem__")) or isinstance(texts, Mapping):
        raise InputError(f"texts must be a list of strings, got a {type(texts).__name__}; make it one with list(...)")
    dimensions = getattr(texts, "ndim", 1)
    if dimensions != 1:  # iterating over a DataFrame would give the names of its columns
        raise InputError(
            f"texts must be a list of strings, got a {type(texts).__name__} of {dimensions} dimensions; give one column"
        )
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(f"text {i} is a {type(text).__name__}, must be a string")


def require_whole(name: str, value: object, *, least: int | None = None) -> int:
    """Refuse what is no whole number, or too small.

    Args:
        name: Of the option.
        value: Given for it.
        least: The smallest that is allowed; None where another check says it.

    Returns:
        The value as Python's own int, which can be put into JSON; NumPy's cannot.

    Raises:
        ConfigurationError: It names the option.
    """
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise ConfigurationError(f"{name} must be a whole number, got {value!r}")
    if least is not None and value < least:
        raise ConfigurationError(f"{name} must be at least {least}, got {value}")
    return int(value)


def require_role(role: Role) -> None:
    """Refuse a role that is none.

    Raises:
        InputError: If it is neither `query` nor `document`.
    """
    if role not in get_args(Role):
        raise InputError(f"role is {role!r}, must be query or document")
