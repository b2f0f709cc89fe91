from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from m3rag.doctor import machine
from m3rag.doctor.machine import check_device, check_extras, check_folders, check_versions


def test_this_machine_has_what_it_needs() -> None:
    assert [check.severity for check in check_versions()] == ["ok"]
    extras = {check.name: check for check in check_extras()}
    assert extras["extra openai"].severity == "ok"
    assert metadata.version("openai") in extras["extra openai"].message
    assert "extra dev" not in extras


def test_a_package_of_the_wrong_version_and_a_missing_extra_name_their_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = tmp_path / "m3rag-0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(
        "Metadata-Version: 2.4\nName: m3rag\nVersion: 0\nProvides-Extra: gone\nProvides-Extra: old\n"
        "Requires-Dist: typer>=999\nRequires-Dist: rich\nRequires-Dist: winonly; sys_platform == 'plan9'\n"
        "Requires-Dist: no-such-package; extra == 'gone'\nRequires-Dist: rich<1; extra == 'old'\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    (_, typer) = check_versions()
    assert (typer.severity, typer.remedy) == ("error", 'pip install "typer>=999"')
    assert metadata.version("typer") in typer.message
    gone, old = check_extras()
    assert (gone.severity, gone.remedy) == ("info", 'pip install "m3rag[gone]"')
    assert (old.severity, old.remedy) == ("warning", 'pip install "m3rag[old]" --upgrade')


def test_folders_need_not_exist_yet_and_nothing_is_left_in_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("M3RAG_CACHE", str(tmp_path / "a" / "b"))
    before = sorted(tmp_path.rglob("*"))
    checks = list(check_folders(tmp_path / "new" / "index"))
    assert [(check.name, check.severity) for check in checks] == [("cache", "ok"), ("disk", "ok")]
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_cache_that_cannot_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    monkeypatch.setenv("M3RAG_CACHE", str(tmp_path / "closed"))
    cache = next(check_folders(None))
    assert (cache.severity, "M3RAG_CACHE" in (cache.remedy or "")) == ("error", True)


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "LEAST_BYTES", shutil.disk_usage(tmp_path).total + 1)
    disk = list(check_folders(tmp_path))[-1]
    assert disk.severity == "warning"
    assert "only" in disk.message


@pytest.mark.parametrize(("device", "dtype"), [("nonsense", None), ("cpu", "float7")])
def test_a_device_that_is_none(device: str, dtype: str | None) -> None:
    (check,) = check_device(device, dtype)
    assert check.severity == "error"
    assert "M3RAG_DEVICE" in (check.remedy or "")


def test_the_device_of_this_machine() -> None:
    (check,) = check_device("cpu", None)
    assert check.severity in ("ok", "info")
    assert "cpu in float32" in check.message


def test_folders_that_cannot_be_made_or_looked_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shut: Callable[[Path], None]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("M3RAG_CACHE", str(tmp_path / "file" / "cache"))
    shut(tmp_path / "shut")
    cache, *disks = check_folders(tmp_path / "shut" / "index")
    assert (cache.severity, "M3RAG_CACHE" in (cache.remedy or "")) == ("error", True)
    assert [disk.name for disk in disks] == ["disk", "disk"]
