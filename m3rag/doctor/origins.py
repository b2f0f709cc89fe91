"""Each setting, its value, and where it came from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from platformdirs import user_config_path
from pydantic import SecretStr

from m3rag._addresses import USER
from m3rag.settings import FILE_NAME, find_file, load_settings, origin_of, setting_names

MASK = "***"


@dataclass(frozen=True, slots=True)
class Origin:
    """A setting and its origin.

    Attributes:
        name: Of the setting, such as `llm.model`.
        value: What holds, as a JSON value; a secret is `***`, also within an address.
        origin: `command line`, the name of a variable, the path of a file, or `default`.
    """

    name: str
    value: Any
    origin: str


def origins(**overrides: Any) -> list[Origin]:
    """All settings of this folder and environment, in the order in which they are declared.

    Args:
        **overrides: As for `load_settings`: what a command line says; None says nothing.

    Raises:
        ConfigurationError: If a setting is unknown or malformed.
    """
    settings = load_settings(**overrides)
    return [Origin(name, _shown(_value(settings, name)), origin_of(name, overrides)) for name in setting_names()]


def setting_files() -> list[Path]:
    """The files that settings are read from here, those that go first ahead."""
    env, toml = Path(".env"), find_file(Path.cwd())
    return [*([env.resolve()] if env.is_file() else []), *([toml] if toml else [])]


def user_file() -> Path:
    """The `m3rag.toml` of the user, there or not, which holds where no other does."""
    return user_config_path("m3rag", appauthor=False) / FILE_NAME


def _value(settings: Any, name: str) -> Any:
    for part in name.split("."):
        settings = getattr(settings, part)
    return settings


def _shown(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return MASK
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, str) and "://" in value:
        return USER.sub(rf"\1{MASK}@", value)
    return str(value) if isinstance(value, Path) else value
