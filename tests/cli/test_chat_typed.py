"""`m3rag chat` on a real terminal: a paste of several lines, Ctrl-C, Ctrl-D, the history."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from m3rag.cli.chat_input import history_file
from m3rag.knowledge_base import KnowledgeBase
from m3rag.testing.llm_server import LLMRequest, LLMServer, Reply

if sys.platform == "win32":
    pytest.skip("there are no pseudo-terminals", allow_module_level=True)

PATIENCE = 120.0
SLOW = "slow " * 2000


class Terminal:
    """A process on a pseudo-terminal."""

    def __init__(self, *command: str, environment: dict[str, str]) -> None:
        self.master, slave = os.openpty()
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True, close_fds=True
        )
        os.close(slave)
        self.shown = ""

    def see(self, text: str, *, typing: str = "") -> None:
        """Wait until a text is shown, typing something each second meanwhile; what was shown up to it is forgotten."""
        end = time.monotonic() + PATIENCE
        again = 0.0
        while text not in self.shown:
            assert time.monotonic() < end, self.shown
            if typing and time.monotonic() > again:
                self.type(typing)
                again = time.monotonic() + 1
            if select.select([self.master], [], [], 0.2)[0]:
                self.shown += os.read(self.master, 65536).decode("utf-8", "replace")
        self.shown = self.shown.partition(text)[2]

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def end(self) -> int:
        code = self.process.wait(timeout=PATIENCE)
        os.close(self.master)
        return code


@pytest.fixture
def server() -> Iterator[LLMServer]:
    def reply(request: LLMRequest) -> Reply:
        return Reply(SLOW, pause=0.02) if "SLOWLY" in request.prompt else Reply("Ducks eat grass [1].")

    with LLMServer(reply) as running:
        yield running


def test_a_conversation_by_hand(tmp_path: Path, server: LLMServer, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "ducks.txt").write_text("Ducks eat grass.")
    monkeypatch.chdir(tmp_path)
    with KnowledgeBase(tmp_path / "i", model="mini") as kb:
        assert kb.ingest(tmp_path / "papers").count("added") == 1
    environment = {
        **os.environ,
        "TERM": "xterm",
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "M3RAG_LLM__MODEL": "served",
        "M3RAG_LLM__BASE_URL": server.base_url,
    }
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from m3rag.cli import main; main()"
    # The terminal becomes the session's own, so that Ctrl-C on it is a signal.
    code = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); " + code
    terminal = Terminal(sys.executable, "-c", code, "chat", "-i", "i", environment=environment)
    terminal.see("Ctrl-D leaves")
    terminal.see("> ")

    terminal.type("\x1b[200~What do ducks\neat?\x1b[201~\r")
    terminal.see("Ducks eat grass [1].")
    terminal.see("[1] ducks.txt, characters 0-16")
    asked = [request for request in server.requests if "What do ducks" in request.prompt]
    assert len(asked) == 1
    assert "eat?" in asked[0].prompt

    terminal.see("> ")
    terminal.type("/clear\r")
    terminal.see("forgotten")
    terminal.see("> ")
    terminal.type("Tell it SLOWLY\r")
    terminal.see("slow")
    terminal.type("\x03")
    terminal.see("stopped; the question is forgotten")
    terminal.see("> ")
    terminal.type("half a line")
    terminal.see("half a line")
    # As a person would: readline does not notice a signal that comes just before it waits for a key.
    terminal.see("> ", typing="\x03")
    terminal.type("/why 1\r")
    terminal.see("nothing has been asked yet")
    terminal.see("> ")
    terminal.type("\x04")
    assert terminal.end() == 0

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    kept = history_file()
    assert kept.is_relative_to(tmp_path)
    assert "Tell it SLOWLY" in kept.read_text()
    assert kept.stat().st_mode & 0o777 == 0o600
