"""All checks, one after the other, none of which stops the next."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from m3rag.doctor.check import Check
from m3rag.doctor.index import check_index
from m3rag.doctor.llm import check_llm
from m3rag.doctor.machine import check_device, check_extras, check_folders, check_versions
from m3rag.doctor.model import check_model
from m3rag.doctor.origins import origins, setting_files
from m3rag.doctor.variables import unknown_variables
from m3rag.errors import ConfigurationError, M3RagError, StoreError
from m3rag.settings import load_settings
from m3rag.store.manifest import read_manifest
from m3rag.store.place import Place, place_of

DEFAULT_MODEL = "mini"


def diagnose(**overrides: Any) -> Iterator[Check]:
    """Look at everything that m3rag needs; each finding as soon as it is known.

    Nothing is changed, fetched or reported to anyone; only the servers that the settings name (index,
    language model) are asked. Without readable settings the checks that need them are left out.

    Args:
        **overrides: As for `load_settings`: `index`, `model`.
    """
    yield from check_versions()
    settings = None
    try:
        settings = load_settings(**overrides)
        place: Place | None = place_of(settings.index, api_key=settings.index_key)
        yield from _settings(overrides)
    except ConfigurationError as error:
        place = None
        yield Check("settings", "error", str(error), _correction())
    for variable in unknown_variables():
        yield Check("variables", "warning", variable.message, f"unset {variable.name}")
    yield from guarded("disk", check_folders(place.folder if place else None))
    if settings is not None and place is not None:
        yield from guarded("model", check_model(settings.model or _model_of(place)))
        yield from guarded("device", check_device(settings.device, settings.dtype))
        yield from guarded("index", check_index(place, settings))
        yield from guarded("language model", check_llm(settings.llm))
    yield from guarded("extras", check_extras())


def guarded(name: str, checks: Iterator[Check]) -> Iterator[Check]:
    """The checks; one that fails itself is a finding too, and the last of them."""
    try:
        yield from checks
    except M3RagError as error:
        yield Check(name, "error", str(error), "correct the settings; see m3rag config show --origin")
    except Exception as error:  # noqa: BLE001 - the rest is still worth knowing, most of all then
        told = f"this could not be looked at ({type(error).__name__}: {error})"
        yield Check(name, "error", told, "report it; where it failed is in the traceback of `m3rag info --debug`")


def _settings(overrides: dict[str, Any]) -> Iterator[Check]:
    given = [setting for setting in origins(**overrides) if setting.origin != "default"]
    shown = ", ".join(f"{setting.name} from {setting.origin}" for setting in given)
    yield Check("settings", "ok", shown or "all at their defaults")


def _correction() -> str:
    try:
        files = " or ".join(map(str, setting_files())) or "the environment"
    except OSError:  # which the finding names
        return "cd to a folder that you may read, and export HOME=FOLDER, a folder of your own"
    return f"correct it in {files}; see m3rag config path"


def _model_of(place: Place) -> str:
    """The model that made the index, as far as that can be told without opening it."""
    if place.folder is None:
        return DEFAULT_MODEL
    try:
        return read_manifest(place.folder).model.name
    except StoreError:
        return DEFAULT_MODEL  # there is none yet, or the check of the index says what it is
