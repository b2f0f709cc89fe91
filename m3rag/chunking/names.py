"""The strategies by the names that settings and command lines use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from difflib import get_close_matches
from typing import Any

from m3rag.chunking.fixed import Fixed
from m3rag.chunking.semantic import Semantic
from m3rag.chunking.sentence_window import SentenceWindow
from m3rag.chunking.small_to_big import SmallToBig
from m3rag.chunking.strategy import Strategy
from m3rag.chunking.structure import Structure
from m3rag.errors import ConfigurationError

STRATEGIES: Mapping[str, Callable[..., Strategy]] = {
    "structure": Structure,
    "fixed": Fixed,
    "sentence-window": SentenceWindow,
    "small-to-big": SmallToBig,
    "semantic": Semantic,
}

_READ: Mapping[str, Callable[[str], Any]] = {"int": int, "float": float}


def strategy_of(strategy: str | Strategy) -> Strategy:
    """The strategy of a name such as `semantic` or `semantic:percentile=90`.

    Args:
        strategy: The name, with options behind a colon, several with commas between; or a strategy, given back.

    Raises:
        ConfigurationError: If there is no such strategy or option, or a value is out of range.
    """
    if not isinstance(strategy, str):
        if not hasattr(strategy, "cuts"):
            raise ConfigurationError(
                f"strategy is a {type(strategy).__name__}, must be a Strategy or the name of one: "
                + ", ".join(STRATEGIES)
            )
        return strategy
    name, _, listed = strategy.partition(":")
    if name not in STRATEGIES:
        near = get_close_matches(name, STRATEGIES, n=1)
        raise ConfigurationError(
            f"no chunking strategy is called {name!r}: "
            + (f"did you mean {near[0]}? " if near else "")
            + f"there are {', '.join(STRATEGIES)}"
        )
    made = STRATEGIES[name]
    known = {field.name: str(field.type) for field in fields(made)}  # type: ignore[arg-type]
    options = {}
    for option in filter(None, listed.split(",")):
        key, _, value = (part.strip() for part in option.partition("="))
        if key not in known:
            raise ConfigurationError(
                f"the chunking strategy {name} has no option {key!r}: "
                + (f"there is {', '.join(known)}" if known else "it has none")
            )
        try:
            options[key] = _READ[known[key]](value)
        except ValueError:
            raise ConfigurationError(f"chunking {strategy!r}: {key} must be a number, got {value!r}") from None
    return made(**options)
