"""A process of its own reads real files, and files whose readers sleep, allocate, crash and print."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from importlib import import_module
from pathlib import Path

import pytest

from m3rag.errors import InputError, ReadError
from m3rag.reading import Content, Format, formats, read, register
from m3rag.reading.sandbox import Limits, Sandbox
from m3rag.reading.sandbox_wire import document_from_wire, document_to_wire, pack, unpack
from m3rag.types import Document, Heading, Page

posix = pytest.mark.skipif(os.name == "nt", reason="signals and limits of POSIX")
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux bounds the address space")


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.setattr(formats, "_registered", {})
    register(Format("odd", (".odd",), import_module("odd_readers").read_odd))
    for what in ("sleep", "allocate", "segfault", "exit", "print", "flood", "bug", "spin without other threads"):
        (tmp_path / f"{what}.odd").write_text(what)
    (tmp_path / "good.md").write_text("# Ducks\n\nDucks swim. 鸭 \U0001f986\n", encoding="utf-8")
    return tmp_path


def odd(**limits: float) -> Sandbox:
    return Sandbox(limits=Limits(**limits))  # type: ignore[arg-type]


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


def test_it_reads_as_this_process_does(shared_data: Path) -> None:
    root = shared_data / "files"
    paths = [
        root / "debian-faq" / "debian-faq.en.pdf",
        *sorted(root.rglob("*.md"))[:3],
        *sorted(root.rglob("*.txt"))[:3],
    ]
    with Sandbox() as sandbox:
        for path in paths:
            assert sandbox.read(path, root=root) == read(path, root=root)


def test_a_document_survives_the_wire() -> None:
    document = Document(
        id="a\udcff.txt",
        text="Ducks \ud800 swim",
        content_hash="0" * 64,
        pages=(Page(1, 0, 5),),
        headings=(Heading("Ducks", 1, 0, 5),),
        metadata={"n": 1, "list": [1.5, None, True]},
        warnings=("page 2 without a text layer",),
    )
    assert document_from_wire(unpack(pack(document_to_wire(document)))) == document
    with pytest.raises(TypeError, match="str was promised"):
        document_from_wire({**document_to_wire(document), "id": 7})


def test_one_process_reads_many_files(files: Path) -> None:
    with odd() as sandbox:
        sandbox.read(files / "good.md")
        child = sandbox._child
        assert sandbox.read(files / "print.odd").text == "print"
        assert sandbox.read(files / "good.md", root=files).id == "good.md"
        assert sandbox._child is child


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("sleep", r"took more than 1 s to read"),
        ("exit", r"crashed \(exit status 3\)"),
        ("flood", r"more than 1 MB of text"),
        ("bug", r"RuntimeError: an oversight"),
        pytest.param("segfault", r"crashed \(SIGSEGV\)", marks=posix),
        pytest.param("allocate", r"takes more than 537 MB of memory", marks=linux),
        pytest.param("spin without other threads", r"took more than 1 s", marks=posix),
    ],
)
def test_a_limit_is_the_files_error_and_the_rest_goes_on(files: Path, what: str, message: str) -> None:
    path = files / f"{what}.odd"
    seconds = 1 if "took" in message else 60
    with odd(seconds=seconds, memory_bytes=1 << 29, output_bytes=1_000_000) as sandbox:
        assert sandbox.read(files / "good.md").headings
        with pytest.raises(ReadError, match=message) as failure:
            sandbox.read(path)
        assert str(failure.value).startswith(f"{path}: ")
        assert sandbox.read(files / "good.md").headings


def test_errors_of_files_are_as_in_this_process(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (files / "empty.txt").write_bytes(b"")
    monkeypatch.chdir(files)
    with Sandbox() as sandbox:
        for path, kind in (("empty.txt", ReadError), ("nowhere.txt", InputError)):
            with pytest.raises(kind) as here:
                read(path)
            with pytest.raises(kind) as there:
                sandbox.read(path)
            assert str(there.value).endswith(str(here.value).split(": ", 1)[1])
        with pytest.raises(InputError, match="not below the root"):
            sandbox.read(files / "good.md", root=files / "other")
        with pytest.raises(ReadError, match="the limit is 3"):
            sandbox.read("good.md", max_bytes=3)


def test_what_cannot_start_is_no_files_fault(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Sandbox() as sandbox:
        register(Format("local", (".local",), lambda data: Content(data.decode())))
        with pytest.raises(InputError, match=r"the reader of the format 'local' .* function of a module"):
            sandbox.read(files / "good.md")
    monkeypatch.setattr(formats, "_registered", {})
    with Sandbox(limits=Limits(memory_bytes=1 << 20)) as sandbox, pytest.raises(InputError, match="could not start"):
        sandbox.read(files / "good.md")
    with pytest.raises(InputError, match="seconds is 0"):
        Limits(seconds=0)


@pytest.mark.parametrize("limit", [{"seconds": 1e300}, {"seconds": float("inf")}, {"memory_bytes": 1 << 63}])
def test_a_limit_that_the_system_cannot_be_told(limit: dict[str, int]) -> None:
    with pytest.raises(InputError, match=f"the limit {next(iter(limit))} is .* at most"):
        Limits(**limit)


def test_closing_ends_the_process_and_reading_starts_another(files: Path) -> None:
    with odd() as sandbox:
        sandbox.read(files / "good.md")
        first = sandbox._child
        sandbox.close()
        sandbox.close()
        assert first is not None
        assert first.returncode is not None
        assert sandbox.read(files / "good.md").headings


@posix
def test_a_process_killed_between_two_files_is_replaced(files: Path) -> None:
    with odd() as sandbox:
        sandbox.read(files / "good.md")
        assert sandbox._child is not None
        sandbox._child.kill()
        sandbox._child.wait()
        assert sandbox.read(files / "good.md").headings


def test_threads_take_turns(files: Path) -> None:
    found: list[Document] = []
    with odd() as sandbox:
        threads = [threading.Thread(target=lambda: found.append(sandbox.read(files / "good.md"))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(found) == 8
    assert len(set(map(repr, found))) == 1


PARENT = """
import sys
from m3rag.reading.sandbox import Sandbox
from m3rag.reading import Format, register
from odd_readers import read_odd
register(Format("odd", (".odd",), read_odd))
sandbox = Sandbox()
sandbox.read(sys.argv[1])
print(sandbox._child.pid, flush=True)
sandbox.read(sys.argv[2])
"""


@linux
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_the_process_ends_with_its_parent(files: Path, how: signal.Signals) -> None:
    code = f"import sys, signal; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
    code += "signal.signal(signal.SIGINT, signal.default_int_handler)\n" + PARENT
    command = [sys.executable, "-c", code, str(files / "good.md"), str(files / "sleep.odd")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert alive(child)
        time.sleep(0.2)
        parent.send_signal(how)
        parent.wait(timeout=30)
    assert gone_within(child, 10)


@posix
def test_where_the_address_space_is_not_bounded_the_resident_set_is() -> None:
    code = (
        "import threading\nfrom m3rag.reading.sandbox_child import watch_memory\n"
        "threading.Thread(target=watch_memory, args=(1 << 28,), daemon=True).start()\n"
        "held = []\nfor _ in range(600):\n    held.append(bytearray(b'x') * (1 << 22))\n"
        "    threading.Event().wait(0.01)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL
