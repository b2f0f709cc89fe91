from __future__ import annotations

import unicodedata
from collections.abc import Callable
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest

from m3rag.errors import InputError
from m3rag.reading.discover_paths import document_id, id_below, is_device, is_gone, is_hidden


@pytest.mark.parametrize(
    ("path", "base", "expected"),
    [
        (PureWindowsPath(r"C:\Users\me\docs\sub\a.md"), PureWindowsPath(r"c:\users\ME\Docs"), "sub/a.md"),
        (PureWindowsPath("C:\\x\\a.md"), PureWindowsPath("C:\\"), "C/x/a.md"),
        (PureWindowsPath("D:\\x\\a.md"), PureWindowsPath("D:\\"), "D/x/a.md"),
        (PureWindowsPath(r"\\server\share\x\a.md"), PureWindowsPath("\\\\server\\share\\"), "server/share/x/a.md"),
        (PurePosixPath("/docs/sub/a.md"), PurePosixPath("/docs"), "sub/a.md"),
        (PurePosixPath("/docs/a.md"), PurePosixPath("/"), "docs/a.md"),
        (PurePosixPath(r"/docs/a\b.md"), PurePosixPath("/docs"), r"a\b.md"),
        (PurePosixPath("/d/" + unicodedata.normalize("NFD", "é/ü.md")), PurePosixPath("/d"), "é/ü.md"),
    ],
)
def test_ids_are_the_same_on_every_system(path: PurePosixPath, base: PurePosixPath, expected: str) -> None:
    assert id_below(path, base) == unicodedata.normalize("NFC", expected)


def test_what_has_no_id() -> None:
    with pytest.raises(InputError, match="not below the root"):
        id_below(PureWindowsPath(r"D:\a.md"), PureWindowsPath("C:\\"))
    with pytest.raises(InputError, match="not Unicode; rename"):
        id_below(PurePosixPath("/d/a\udcff.md"), PurePosixPath("/d"))


def test_a_file_by_itself_is_named_by_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert document_id("sub/a.md") == "sub/a.md"
    assert document_id("/elsewhere/a.md") == "elsewhere/a.md"


@pytest.mark.parametrize(
    "name", ["NUL", "nul.txt", "Con.tar.gz", "COM1.md", "lpt9", "COM².txt", "AUX .txt", "a.", "a "]
)
def test_names_that_windows_cannot_open(name: str) -> None:
    assert is_device(name)


@pytest.mark.parametrize("name", ["NULL.txt", "COM10.md", "console.md", "a.con", "COM0.md", "a.b c"])
def test_names_that_windows_can(name: str) -> None:
    assert not is_device(name)


def test_hidden_names(tmp_path: Path) -> None:
    import os

    for name in (".hidden.md", "~$report.docx", "seen.md"):
        (tmp_path / name).touch()
    with os.scandir(tmp_path) as entries:
        assert {entry.name for entry in entries if not is_hidden(entry)} == {"seen.md"}


def test_a_name_in_another_encoding_than_the_locale_names_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    name = PurePosixPath("/d/" + "утка.md".encode().decode("ascii", "surrogateescape"))
    with pytest.raises(InputError, match="not Unicode; rename the file"):
        id_below(name, PurePosixPath("/d"))
    monkeypatch.setattr("sys.getfilesystemencoding", lambda: "ascii")
    with pytest.raises(InputError, match="set PYTHONUTF8=1, as names are taken for ascii here, or rename the file"):
        id_below(name, PurePosixPath("/d"))


def test_what_may_not_be_looked_at_is_not_gone(tmp_path: Path, shut: Callable[[Path], None]) -> None:
    file = tmp_path / "a.md"
    assert is_gone(file)
    file.write_text("a")
    assert not is_gone(file)
    assert is_gone(file / "below")
    shut(tmp_path)
    assert not is_gone(file)
