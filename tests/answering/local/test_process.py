"""The process of a model, and how it ends: with its owner, whatever happens to that."""

from __future__ import annotations

import gc
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from m3rag.answering.local.process import LlamaProcess, Setup
from m3rag.errors import LLMError

linux = pytest.mark.skipif(sys.platform != "linux", reason="processes are looked at in /proc")

OWNER = """
import sys
from m3rag.answering.local import LocalChat
from m3rag.answering.protocol import Message
llm = LocalChat(sys.argv[1], threads=1, context_tokens=0, max_tokens=1_000_000)
pieces = llm.stream([Message("user", "Quack without end.")])
next(pieces)
print(llm._loaded().process.pid, flush=True)
for _ in pieces:
    pass
"""


def setup(path: Path, *, seconds: float = 120.0) -> Setup:
    return Setup(path=path, context_tokens=1024, threads=1, seconds=seconds)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def gone_within(pid: int, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.05)
    return not alive(pid)


def refused(path: Path) -> str:
    with pytest.raises(LLMError) as caught:
        LlamaProcess(setup(path))
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_it_listens_on_loopback_alone_and_asks_for_its_key(tiny_gguf: Path) -> None:
    process = LlamaProcess(setup(tiny_gguf))
    try:
        assert process.address.startswith("http://127.0.0.1:")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with pytest.raises(urllib.error.HTTPError) as caught:
            opener.open(f"{process.address}/v1/models/", timeout=10)
        caught.value.close()
        with pytest.raises(urllib.error.HTTPError) as page:
            opener.open(process.address, timeout=10)
        page.value.close()
        assert (caught.value.code, page.value.code) == (401, 404)
        assert process.alive
    finally:
        process.close()
    assert not process.alive
    assert process.closed
    with socket.socket() as client:
        assert client.connect_ex(("127.0.0.1", int(process.address.rpartition(":")[2]))) != 0
    process.close()


def test_a_file_cut_short_is_refused_with_what_llama_cpp_says(tiny_gguf: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.gguf"
    path.write_bytes(tiny_gguf.read_bytes()[:-100_000])
    said = refused(path)
    assert "corrupted or incomplete" in said
    assert "download the file again" in said


def test_a_file_that_only_begins_as_gguf_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp", reason='models are run by xllamacpp: pip install "m3rag[local]"')
    path = tmp_path / "noise.gguf"
    path.write_bytes(b"GGUF\x03\x00\x00\x00" + bytes(range(256)))
    assert "llama.cpp cannot run the model" in refused(path)


def test_a_model_that_loads_too_slowly_is_given_up(tiny_gguf: Path) -> None:
    with pytest.raises(LLMError, match=r"did not load within 1e-05 s: use a smaller"):
        LlamaProcess(setup(tiny_gguf, seconds=1e-5))


@linux
def test_one_that_is_forgotten_ends(tiny_gguf: Path) -> None:
    process = LlamaProcess(setup(tiny_gguf))
    pid = process.pid
    assert alive(pid)
    del process
    gc.collect()
    assert gone_within(pid, 20)


@linux
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_it_never_outlives_its_owner(tiny_gguf: Path, number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tiny_gguf)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        assert alive(pid)
        owner.send_signal(number)
        owner.wait(timeout=60)
    assert gone_within(pid, 30)


@linux
def test_want_of_memory_is_told_as_such(tiny_gguf: Path) -> None:
    """The limit of this process holds for the ones it starts."""
    script = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_AS, (12 << 30, 12 << 30))\n"
        "from pathlib import Path\n"
        "from m3rag.answering.local.process import LlamaProcess, Setup\n"
        "LlamaProcess(Setup(path=Path(sys.argv[1]), context_tokens=1 << 24, threads=1, seconds=200))\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tiny_gguf)], capture_output=True, text=True, check=False)
    assert "LLMError: the model" in done.stderr
    assert "needs more memory than there is" in done.stderr
    assert "less context_tokens" in done.stderr
