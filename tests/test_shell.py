from __future__ import annotations

import os
import shlex

import pytest

from m3rag._shell import quoted


@pytest.mark.skipif(os.name == "nt", reason="shlex reads what a POSIX shell does")
@pytest.mark.parametrize("argument", ["index", "sp ace/x", "it's", "chroma:f?collection=c", "$HOME", "", "a\nb"])
def test_a_shell_takes_it_as_one_argument(argument: str) -> None:
    assert shlex.split(f"m3rag list --index {quoted(argument)}")[3:] == [argument]


def test_windows_knows_double_quotes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as windows:  # not for pytest's own paths
        windows.setattr(os, "name", "nt")
        shown = [quoted(argument) for argument in (r"C:\my 'index'", r"C:\index~1", "C:\\my index\\")]
    assert shown == [r'''"C:\my 'index'"''', r"C:\index~1", '"C:\\my index\\\\"']
