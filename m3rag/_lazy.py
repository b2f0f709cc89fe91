"""Names of a package that load on first use (PEP 562), so that importing the package costs nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module


def lazy_names(
    package: str, homes: Mapping[str, str], *, needs: str | None = None, extra: str | None = None
) -> Callable[[str], object]:
    """The `__getattr__` of a package.

    Args:
        package: The package's `__name__`.
        homes: Each public name and the module that defines it.
        needs: A third-party module that may not be installed.
        extra: The extra of m3rag that installs it.

    Returns:
        A function that raises AttributeError for names without a home, and ImportError that names
        the extra where `needs` is missing.
    """

    def load(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            return getattr(import_module(homes[name]), name)
        except ModuleNotFoundError as error:
            if needs is None or (error.name or "").partition(".")[0] != needs:
                raise
            raise ImportError(
                f'{package}.{name} needs {needs}: pip install "m3rag[{extra}]"', name=error.name
            ) from error

    return load
