"""What is loaded or opened once, whoever copies what holds it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import Self


class CopiedAsItself:
    """A mixin: a copy is the object itself, since frameworks copy what holds a model or an index."""

    def __copy__(self) -> Self:
        """The object itself."""
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """The object itself."""
        return self
