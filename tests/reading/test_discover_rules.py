from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from m3rag.errors import InputError
from m3rag.reading import document_id, find_files
from m3rag.reading.discover_rules import Rules

NAMES = (
    "a.md", "a.txt", "build/x.md", "docs/build/y.md", "docs/a.md", "docs/keep/b.md", "docs/keep/c.txt",
    "docs/old/deep/d.md", "notes/e.md", "notes/[odd].md", "top.md", "ünïcode/ß.md",
)  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    for name in NAMES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def found(root: Path, **rules: Any) -> set[str]:
    return {document_id(path, root=base) for base, path in find_files(root, rules=Rules(**rules)).files}


@pytest.mark.parametrize(
    ("rules", "left"),
    [
        ({}, set(NAMES)),
        ({"include": ("*.txt",)}, {"a.txt", "docs/keep/c.txt"}),
        (
            {"include": ("docs/",), "exclude": ("old/",)},
            {"docs/build/y.md", "docs/a.md", "docs/keep/b.md", "docs/keep/c.txt"},
        ),
        ({"include": ("/*.md",)}, {"a.md", "top.md"}),
        ({"exclude": ("*.md", "!a.md")}, {"a.md", "a.txt", "docs/a.md", "docs/keep/c.txt"}),
        ({"exclude": ("build/",)}, {name for name in NAMES if "build/" not in name}),
        ({"include": ("**/keep/*",)}, {"docs/keep/b.md", "docs/keep/c.txt"}),
        ({"include": ("ünïcode/",)}, {"ünïcode/ß.md"}),
    ],
)  # fmt: skip
def test_globs(root: Path, rules: dict[str, tuple[str, ...]], left: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(root, **rules) == left
    monkeypatch.chdir(root)
    assert found(Path(), **rules) == left


def test_a_file_given_by_itself_is_taken_whatever_the_rules(root: Path) -> None:
    assert len(find_files(root / "a.txt", rules=Rules(include=("*.md",))).files) == 1


def test_a_malformed_pattern_is_named(root: Path) -> None:
    with pytest.raises(InputError, match=r"exclude: .*as in \.gitignore"):
        find_files(root, rules=Rules(exclude=("!",)))


def test_what_gitignore_takes_back_is_still_to_be_included(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("*.md\n!a.md\n*.log.txt\n!keep.txt\n")
    for name in ("a.md", "b.txt", "c.md", "keep.txt"):
        (tmp_path / name).write_text(name)
    assert found(tmp_path, include=("*.md",), gitignore=True) == {"a.md"}


@pytest.mark.skipif(shutil.which("git") is None, reason="git is the oracle")
@pytest.mark.parametrize("below", ["", "docs", "docs/keep"])
def test_gitignore_is_what_git_says(root: Path, below: str) -> None:
    (root / ".gitignore").write_text("build/\n*.txt\n!c.txt\n/top.md\n# a comment\n\n\\[odd].md\n")
    (root / "docs" / ".gitignore").write_text("/a.md\n!build/\nold/**\n")
    (root / "docs" / "keep" / ".gitignore").write_text("!b.md\n")
    git = ["git", "-C", str(root)]
    subprocess.run([*git, "init", "-q"], check=True)
    command = [*git, "-c", "core.quotepath=off", "-c", "core.excludesfile=", "ls-files", "-co", "--exclude-standard"]
    done = subprocess.run([*command, "--", below or "."], check=True, capture_output=True, text=True)
    listed = done.stdout.split("\n")
    expected = {name for name in listed if name and not name.endswith(".gitignore")}
    assert {f"{below}/{name}".lstrip("/") for name in found(root / below, gitignore=True)} == expected
    assert len(expected) < len(NAMES)
    assert found(root, gitignore=False) == set(NAMES)
