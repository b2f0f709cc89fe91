"""What is asked of a model that lacks a leg is refused by one rule, before anything is encoded or stored."""

from __future__ import annotations

from collections.abc import Collection

from m3rag.errors import ConfigurationError
from m3rag.types import LEGS, Leg, ModelInfo


def require_legs(model: ModelInfo, needed: Collection[Leg], *, what: str, remedy: str) -> None:
    """Refuse what a model cannot do for lack of a leg.

    Args:
        model: What the model gives.
        needed: The legs without which it cannot be done.
        what: What was asked for; begins the message.
        remedy: What to do without another model.

    Raises:
        ConfigurationError: If the model lacks one of the legs.
    """
    missing = [leg for leg in LEGS if leg in needed and leg not in model.legs]
    if missing:
        raise ConfigurationError(
            f"{what} needs the leg{'s' * (len(missing) > 1)} {' and '.join(missing)}, which the model {model.name} "
            f"does not give: {remedy}, or an M3 model such as BAAI/bge-m3"
        )
