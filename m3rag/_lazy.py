"""Names of a package that load on first use (PEP 562), so that importing the package costs nothing; and extras."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from types import MappingProxyType

_Extra = tuple[str, str]


def lazy_names(
    package: str, homes: Mapping[str, str], *, extras: Mapping[str, _Extra] = MappingProxyType({})
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """The `__getattr__` and the `__dir__` of a package.

    Args:
        package: The package's `__name__`.
        homes: Each public name and the module that defines it.
        extras: Of a home, or of the package for all its homes: the third-party module that may not be
            installed, and the extra of m3rag that installs it.

    Returns:
        A function that raises AttributeError for names without a home, and ImportError that names
        the extra where its module is missing; and one that lists the package's names, those left out
        whose extra is not installed, since `help` and completion load what is listed.
    """

    def extra_of(name: str) -> _Extra | None:
        return extras.get(homes[name]) or extras.get(package)

    def load(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            return getattr(import_module(homes[name]), name)
        except ModuleNotFoundError as error:
            extra = extra_of(name)
            if extra is None or (error.name or "").partition(".")[0] != extra[0]:
                raise
            raise _missing(f"{package}.{name}", *extra, error) from error

    def names() -> list[str]:
        usable = [name for name in homes if (extra := extra_of(name)) is None or _is_there(extra[0])]
        return sorted({*vars(sys.modules[package]), *usable})

    return load, names


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ValueError:  # it is loaded, and has no spec: made by hand
        return True


def require_extra(what: str, *modules: str, extra: str) -> None:
    """Say early that an extra is missing.

    Args:
        what: What needs it.
        modules: Modules of the packages that it installs; they are imported.
        extra: Its name.

    Raises:
        ImportError: If one of them cannot be imported; the extra is named.
    """
    for module in modules:
        try:
            import_module(module)
        except ModuleNotFoundError as error:
            raise _missing(what, error.name or module, extra, error) from error


def _missing(what: str, module: str, extra: str, error: ModuleNotFoundError) -> ImportError:
    return ImportError(f'{what} needs {module}: pip install "m3rag[{extra}]"', name=error.name)
