"""What the README tells people to run, run in its order."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from m3rag.settings import load_settings, setting_names

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("readme")
    (work / "examples").symlink_to(ROOT / "examples")
    (work / ".git").mkdir()
    return work


def run(folder: Path, *command: str) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("M3RAG_")}
    environment["XDG_CONFIG_HOME"] = str(folder / "config")
    if cache := os.environ.get("M3RAG_CACHE"):
        environment["M3RAG_CACHE"] = cache
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_commands_then_python(folder: Path) -> None:
    commands = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("m3rag ")]
    assert len(commands) >= 5
    outputs = {}
    for line in commands:
        arguments = shlex.split(line, comments=True)[1:]
        outputs[arguments[0]] = run(folder, "-c", "from m3rag.cli import main; main()", *arguments)
        assert outputs[arguments[0]].strip()
    assert "duck.en.html" in outputs["ask"]
    programs = blocks("python")
    assert len(programs) == 4
    printed = run(folder, "-c", programs[0])
    assert "Ian Murdock" in printed
    assert "debian-faq.de.pdf 10" in printed
    assert "Ducks eat pond weed." in run(folder, "-c", programs[1])
    searched = run(folder, "-c", programs[2])
    assert "'duck.en.html'" in searched
    assert "debian" not in searched
    assert "reason='filter'" in searched
    assert "(2, 384) (2, 250037)" in run(folder, "-c", programs[3])


def test_the_first_screen_shows_what_really_comes_out(folder: Path) -> None:
    (shown,) = blocks("console")
    command, *lines = shown.splitlines()
    run(folder, "-c", "from m3rag.cli import main; main()", "ingest", "examples/documents")
    arguments = shlex.split(command.removeprefix("$ "))[1:]
    printed = run(folder, "-c", "from m3rag.cli import main; main()", *arguments)
    assert printed.splitlines() == lines


def test_the_demo_answers_each_question_with_a_citation(folder: Path) -> None:
    # Over the index that the commands above have made of the same documents, which take half a minute to encode.
    printed = run(folder, "-c", "from m3rag.cli import main; main()", "demo", "-i", "m3rag-index")
    answers = printed.split("\n> ")[1:]
    assert len(answers) == 3
    cited = [next(line for line in a.splitlines() if line.startswith("[1] ")).split(",")[0] for a in answers]
    assert cited == ["[1] debian-faq.de.pdf", "[1] duck.en.html", "[1] human-rights.uk.html"]
    assert "p. 10" in answers[0]
    assert "1993 von Ian Murdock" in answers[0]


def test_the_commands_of_make_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    promised = re.findall(r"make ([a-z]+)", "".join(blocks("sh")))
    assert promised == ["demo", "test", "serve"]
    assert all(f"\n{target}: " in makefile for target in promised)


def test_the_settings_shown_are_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (shown,) = blocks("toml")
    (tmp_path / "m3rag.toml").write_text(shown, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    settings = load_settings()
    assert settings.llm.model == "llama3.2"
    assert settings.chunk_tokens == 256


def test_every_setting_is_in_the_table() -> None:
    table = README.split("All of them")[1].split("Exit codes:")[0]
    shown = re.findall(r"`([a-z_.]+)`", table)
    named = {f"serve{name}" if name.startswith(".") else name for name in shown}
    assert set(setting_names()) <= named


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
