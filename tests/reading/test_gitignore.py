from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from m3rag.reading.gitignore import Patterns

# Letters of one byte: a `?` is a byte to Git, a character here.
PATHS = [
    "c",
    "b.md",
    "a/b.md",
    "a/b/c.md",
    "a/a/a",
    "ab/a",
    "ab/b.md",
    "b/a/b.md",
    "-",
    "a-b",
    "ab]",
    "!a",
    "#a",
    "a b",
]
PIECES = [
    "a",
    "b",
    ".md",
    "/",
    "*",
    "**",
    "?",
    "[ab]",
    "[!a]",
    "[a-c]",
    "[^b]",
    "[]a]",
    "[a--]",
    "[--a]",
    "[c-a]",
    "[!--a]",
    "-",
    "\\",
    "!",
    "#",
    " ",
    "]",
]
PATTERN = st.lists(st.sampled_from(PIECES), min_size=1, max_size=6).map("".join)


@pytest.mark.skipif(shutil.which("git") is None, reason="git is the oracle")
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(PATTERN, min_size=1, max_size=4))
@example(lines=["a", "!b"])
def test_git_says_the_same(lines: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    # Git's manual says that these are plain asterisks; its code does not quite.
    assume(not any(re.search(r"[^/]\*\*|\*\*[^/]", line) for line in lines))
    assert said(lines) == git_said(lines, repository(tmp_path_factory))


def test_the_last_that_matches_decides() -> None:
    patterns = Patterns.of(["*.md", "!keep.md", "# a comment", "", "old/"])
    asked = ("a.md", "b/keep.md", "a.txt", "x/old/a.txt", "old", "old/")
    assert [patterns.says(path) for path in asked] == [True, False, None, True, None, True]
    assert Patterns.of([]).says("a") is None


@pytest.mark.parametrize("line", ["!", "/", "a\\"])
def test_what_is_no_pattern_is_named(line: str) -> None:
    with pytest.raises(ValueError, match="is no pattern"):
        Patterns.of([line])
    assert Patterns.of([line, "b"], strict=False).says("b") is True


@pytest.mark.parametrize(
    ("pattern", "meant"), [("[a--]", "a"), ("[z-a]", "z"), ("[--0]", "-0"), ("[a&&b]", "a&b"), ("[[:alpha:]-]", "abz-")]
)
def test_ranges_as_git_takes_them(pattern: str, meant: str) -> None:
    patterns = Patterns.of([pattern])
    assert [c for c in "abz-0&" if patterns.says(c)] == [c for c in "abz-0&" if c in meant]


def said(lines: list[str]) -> set[str]:
    """What is ignored, looking at each folder on the way first, as a walk does."""
    patterns = Patterns.of(lines, strict=False)
    return {path for path in PATHS if any(patterns.says(above) for above in [*folders(path), path])}


def folders(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:i]) + "/" for i in range(1, len(parts))]


def git_said(lines: list[str], root: Path) -> set[str]:
    (root / ".gitignore").write_text("\n".join(lines) + "\n", encoding="utf-8")
    command = ["git", "-C", str(root), "-c", "core.excludesfile=", "check-ignore", "--no-index", "-z", "--stdin"]
    done = subprocess.run(command, input="\0".join(PATHS), capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    return set(done.stdout.split("\0")) - {""}


def repository(factory: pytest.TempPathFactory) -> Path:
    root = factory.getbasetemp() / "gitignore"
    if not root.exists():
        for path in PATHS:
            for folder in folders(path):
                (root / folder).mkdir(parents=True, exist_ok=True)
        subprocess.run(["git", "init", "-q", str(root)], check=True)
    return root
