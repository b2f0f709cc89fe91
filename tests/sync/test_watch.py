from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from m3rag.errors import InputError
from m3rag.reading import Found, find_files
from m3rag.sync.watch import MOST_WAITS, snapshot, watch


class Looks:
    """Plays a script: what happens before each look; stops when it is over."""

    def __init__(self, root: Path, *script: Callable[[], object]) -> None:
        self.root = root
        self.stop = threading.Event()
        self.calls: list[int] = []
        self.looks = 0
        self._script = list(script)

    def find(self) -> Found:
        if self.looks:
            self._script.pop(0)()
            if not self._script:
                self.stop.set()
        self.looks += 1
        return find_files(self.root)

    def changed(self) -> bool:
        self.calls.append(self.looks)
        return True


def nothing() -> None:
    return None


def test_it_waits_until_files_rest(tmp_path: Path) -> None:
    write = lambda text: lambda: (tmp_path / "a.txt").write_text(text)  # noqa: E731
    looks = Looks(tmp_path, nothing, write("1"), write("22"), nothing, nothing, (tmp_path / "a.txt").unlink, nothing)
    watch(looks.find, looks.changed, interval=0.001, stop=looks.stop)
    assert looks.calls == [1, 5, 8]


def test_files_that_never_rest_do_not_put_it_off_for_ever(tmp_path: Path) -> None:
    lines = [lambda i=i: (tmp_path / "log.txt").write_text("x" * i) for i in range(1, MOST_WAITS + 3)]
    looks = Looks(tmp_path, *lines)
    watch(looks.find, looks.changed, interval=0.001, stop=looks.stop)
    assert len(looks.calls) == 2


def test_it_tries_again_what_could_not_be_done(tmp_path: Path) -> None:
    looks = Looks(tmp_path, nothing, nothing, nothing)
    answers = [False, True]

    def changed() -> bool:
        looks.changed()
        return answers.pop(0)

    watch(looks.find, changed, interval=0.001, stop=looks.stop)
    assert answers == []
    assert len(looks.calls) == 2


def test_what_makes_a_change(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one")
    first = snapshot(find_files(tmp_path))
    assert snapshot(find_files(tmp_path)) == first
    (tmp_path / "a.txt").rename(tmp_path / "b.txt")
    second = snapshot(find_files(tmp_path))
    assert second != first
    listed = find_files(tmp_path)
    (tmp_path / "b.txt").unlink()
    assert snapshot(listed) != second
    with pytest.raises(InputError, match="more than 0"):
        watch(lambda: listed, lambda: True, interval=0)
