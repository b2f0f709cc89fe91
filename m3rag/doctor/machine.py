"""Checks of the machine: versions and extras, cache folder, disk, device."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from m3rag import __version__
from m3rag.doctor.check import Check
from m3rag.encoder.mini import cache_folder
from m3rag.errors import ConfigurationError

LEAST_BYTES = 1_000_000_000
"""Less free than this is told: the cache of `mini` takes 300 MB, and an index of 10,000 chunks about as much."""

NOT_FOR_USERS = ("dev",)


def check_versions() -> Iterator[Check]:
    """m3rag, Python, and whether the packages that m3rag needs are there in versions that it can use."""
    yield Check("m3rag", "ok", f"{__version__} on Python {platform.python_version()}, {sys.platform}")
    for requirement in _requirements()[""]:
        problem = _problem(requirement)
        if problem:
            yield Check("packages", "error", problem, f'pip install "{_plain(requirement)}"')


def check_extras() -> Iterator[Check]:
    """What of the optional extras is installed; the names and versions of their packages."""
    for extra, requirements in sorted(_requirements().items()):
        if extra in ("", *NOT_FOR_USERS) or not requirements:
            continue
        missing = [r.name for r in requirements if _installed(r) is None]
        found = [f"{r.name} {_installed(r)}" for r in requirements if _installed(r) is not None]
        install = f'pip install "m3rag[{extra}]"'
        outdated = [problem for r in requirements if _installed(r) is not None and (problem := _problem(r))]
        if missing:
            yield Check(f"extra {extra}", "info", f"not installed: {', '.join(missing)}", install)
        elif outdated:
            yield Check(f"extra {extra}", "warning", "; ".join(outdated), f"{install} --upgrade")
        else:
            yield Check(f"extra {extra}", "ok", ", ".join(found))


def check_folders(index: Path | None) -> Iterator[Check]:
    """Whether the cache can be written to, and whether the disks of cache and index have room."""
    cache = cache_folder()
    place = _existing(cache)
    try:
        with tempfile.TemporaryFile(dir=place):
            yield Check("cache", "ok", f"{cache} can be written to")
    except OSError as error:
        remedy = "export M3RAG_CACHE=FOLDER, a folder that you may write to"
        yield Check("cache", "error", f"{cache} cannot be written to ({error.strerror})", remedy)
    for folder in dict.fromkeys([place, *([_existing(index)] if index else [])]):
        free = shutil.disk_usage(folder).free
        shown = f"{free / 1e9:.1f} GB free at {folder}"
        if free < LEAST_BYTES:
            yield Check("disk", "warning", f"only {shown}", "free some, or set M3RAG_CACHE and --index to another disk")
        else:
            yield Check("disk", "ok", shown)


def check_device(device: str | None, dtype: str | None) -> Iterator[Check]:
    """Whether the device of the settings can be used, and in that precision."""
    import torch  # noqa: PLC0415 - takes seconds, and the checks before it need not wait

    from m3rag.encoder.device import choose_device, choose_dtype  # noqa: PLC0415

    try:
        chosen = choose_device(device)
        precision = str(choose_dtype(dtype, chosen)).removeprefix("torch.")
    except ConfigurationError as error:
        yield Check("device", "error", str(error), "unset M3RAG_DEVICE and M3RAG_DTYPE, or see `m3rag config show`")
        return
    count = torch.get_num_threads()
    threads = f", {count} thread{'' if count == 1 else 's'}" if chosen.type == "cpu" else ""
    shown = f"{chosen} in {precision}{threads} (torch {torch.__version__})"
    if chosen.type == "cpu" and torch.cuda.is_available():
        yield Check("device", "info", f"{shown}, though there is a GPU", "unset M3RAG_DEVICE")
    else:
        yield Check("device", "ok", shown)


def _existing(folder: Path) -> Path:
    """The folder, or what is there of the names above it: the nearest that this user may look at."""
    folder = folder.absolute()
    return next(place for place in (folder, *folder.parents) if os.path.exists(place))


def _requirements() -> dict[str, list[Requirement]]:
    """What m3rag asks for, by extra; `""` is what it cannot do without. Other systems' packages are left out."""
    found: dict[str, list[Requirement]] = defaultdict(list)
    for requirement in map(Requirement, metadata.requires("m3rag") or []):
        marker = requirement.marker
        if marker is None or marker.evaluate({"extra": ""}):
            found[""].append(requirement)
            continue
        for extra in metadata.metadata("m3rag").get_all("Provides-Extra") or []:
            if marker.evaluate({"extra": extra}):
                found[extra].append(requirement)
    return found


def _installed(requirement: Requirement) -> str | None:
    try:
        return metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return None


def _problem(requirement: Requirement) -> str | None:
    installed = _installed(requirement)
    if installed is None:
        return f"{requirement.name} is not installed"
    if not requirement.specifier.contains(installed, prereleases=True):
        return f"{requirement.name} {installed} is installed, m3rag needs {requirement.specifier}"
    return None


def _plain(requirement: Requirement) -> str:
    return f"{requirement.name}{requirement.specifier}"
