"""A real llama.cpp runs a tiny real model whose replies are known; see conftest."""

from __future__ import annotations

import importlib.util
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from m3rag.answering import Generative
from m3rag.answering.local import LocalChat
from m3rag.answering.protocol import Message
from m3rag.errors import ConfigurationError, LLMError
from m3rag.types import Answer, Chunk, Hit

ANSWER = "Ducks eat pond weed [1]."
QUESTION = [Message("system", "Be brief."), Message("user", "What do ducks eat?")]
ENDLESS = [Message("user", "Quack without end.")]

posix = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")


def hit(text: str, number: int = 1) -> Hit:
    chunk = Chunk(id=f"c{number}", document_id="ducks.md", text=text, start=0, end=len(text))
    return Hit(chunk=chunk, score=1.0)


def running_pid(llm: LocalChat) -> int:
    return llm._loaded().process.pid


def test_a_reply_comes_in_pieces(llm: LocalChat) -> None:
    pieces = list(llm.stream(QUESTION))
    assert pieces == ["Ducks", " eat", " pond", " weed", " [1]."]
    assert llm.complete(QUESTION) == ANSWER


def test_it_is_named_after_its_file(llm: LocalChat, tiny_gguf: Path) -> None:
    assert llm.name == "tiny Ente 鸭"
    assert repr(llm) == f"LocalChat({str(tiny_gguf)!r})"


def test_an_answer_cites_its_passage(llm: LocalChat) -> None:
    *pieces, last = Generative(llm).stream("What do ducks eat?", [hit("Ducks eat pond weed.")])
    assert "".join(str(piece) for piece in pieces) == ANSWER
    assert isinstance(last, Answer)
    assert last.text == ANSWER
    assert [(one.number, one.document_id) for one in last.citations] == [(1, "ducks.md")]


def test_a_refusal_is_one(llm: LocalChat) -> None:
    answer = Generative(llm).answer("What do ducks drink!", [hit("Ducks eat pond weed.")])
    assert not answer.answered


def test_an_empty_reply_is_an_error_of_the_answerer(llm: LocalChat) -> None:
    assert llm.complete([Message("user", "Say nothing;")]) == ""
    with pytest.raises(LLMError, match="replied with nothing"):
        Generative(llm).answer("Say nothing;", [hit("Ducks eat pond weed.")])


def test_threads_share_one_model_and_take_turns(llm: LocalChat) -> None:
    pid = running_pid(llm)
    with ThreadPoolExecutor(12) as pool:
        replies = list(pool.map(lambda _: llm.complete(QUESTION), range(24)))
    assert replies == [ANSWER] * 24
    assert running_pid(llm) == pid


def test_threads_that_come_first_together_load_it_once(tiny_gguf: Path) -> None:
    together = threading.Barrier(4)

    def pid(llm: LocalChat) -> int:
        together.wait(timeout=30)
        return running_pid(llm)

    with LocalChat(tiny_gguf, threads=1) as llm, ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(pid, [llm] * 4))) == 1


def test_closing_a_reply_frees_the_model_for_the_next(tiny_gguf: Path) -> None:
    with LocalChat(tiny_gguf, threads=1, context_tokens=0, max_tokens=1_000_000) as llm:
        endless = llm.stream(ENDLESS)
        assert next(endless) == "quack"
        endless.close()
        # Only one reply is written at a time, so this one waits until the endless one has ended.
        assert llm.complete(QUESTION) == ANSWER


def test_tokens_are_counted_as_the_model_counts(llm: LocalChat) -> None:
    assert llm.count_tokens("") == 0
    assert llm.count_tokens("duck") == 4
    assert llm.count_tokens("鸭") == 3  # bytes, in this vocabulary


def test_room_is_what_a_prompt_and_its_reply_leave(llm: LocalChat) -> None:
    assert llm.context_tokens == 8192
    prompt = "user: What do ducks eat?"
    spaces = prompt.count(" ")
    size = 1 + len(prompt) + 2 * spaces  # one <s>; a byte a letter, three for the mark that stands for a space
    assert llm.room([Message("user", "What do ducks eat?")]) == 8192 - 1024 - size


def test_the_context_is_never_longer_than_the_model_was_trained_with(short_gguf: Path) -> None:
    with LocalChat(short_gguf, threads=1) as llm:
        assert llm.context_tokens == 4096
        assert 3000 < llm.room([Message("user", "?")]) < 4096 - 1024
        with pytest.raises(
            LLMError, match=r"the prompt of \d+ tokens does not fit .*short\.gguf, 4096 tokens"
        ) as caught:
            llm.complete([Message("user", "duck" * 1200)])
        assert "fewer passages" in str(caught.value)
        with pytest.raises(LLMError, match="does not fit the context"):
            llm.room([Message("user", "duck" * 1200)])
        with pytest.raises(LLMError, match="4096 tokens, left no room for a whole reply"):
            llm.complete([Message("user", "duck" * 800 + ".")])  # 900 tokens remain, and the reply has no end


def test_a_reply_that_is_cut_is_an_error(tiny_gguf: Path) -> None:
    with (
        LocalChat(tiny_gguf, threads=1, max_tokens=3) as llm,
        pytest.raises(LLMError, match="cut its reply at 3 tokens"),
    ):
        llm.complete(QUESTION)


@posix
def test_a_model_that_is_killed_says_so_and_is_loaded_again(tiny_gguf: Path) -> None:
    with LocalChat(tiny_gguf, threads=1, context_tokens=0, max_tokens=1_000_000) as llm:
        reply = llm.stream(ENDLESS)
        assert next(reply) == "quack"
        os.kill(running_pid(llm), signal.SIGKILL)
        with pytest.raises(LLMError, match=r"was killed, perhaps for want of memory \(SIGKILL\): use a smaller"):
            list(reply)
        assert llm.complete(QUESTION) == ANSWER


def test_closing_while_it_replies_says_so(tiny_gguf: Path) -> None:
    llm = LocalChat(tiny_gguf, threads=1, context_tokens=0, max_tokens=1_000_000)
    reply = llm.stream(ENDLESS)
    assert next(reply) == "quack"
    llm.close()
    with pytest.raises(LLMError, match="was closed while it was asked"):
        list(reply)
    llm.close()


def test_nothing_is_loaded_before_the_first_question(tiny_gguf: Path) -> None:
    llm = LocalChat(tiny_gguf)
    assert llm._running is None
    llm.close()


def test_who_waits_too_long_for_a_turn_is_told_so(tiny_gguf: Path) -> None:
    with LocalChat(tiny_gguf, threads=1, context_tokens=0, max_tokens=1_000_000, timeout=1) as llm:
        endless = llm.stream(ENDLESS)
        assert next(endless) == "quack"
        with pytest.raises(LLMError, match="sent nothing for 1 s: raise timeout"):
            llm.complete(QUESTION)
        endless.close()


@pytest.mark.parametrize("options", [{"context_tokens": -1}, {"max_tokens": 0}, {"threads": 0}])
def test_numbers_out_of_range_are_refused(tiny_gguf: Path, options: dict[str, int]) -> None:
    (name,) = options
    with pytest.raises(ConfigurationError, match=f"{name} is"):
        LocalChat(tiny_gguf, **options)


def test_without_the_extra_its_name_is_said(tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "m3rag.answering.local.chat.find_spec", lambda name: None if name == "xllamacpp" else found(name)
    )
    with pytest.raises(ImportError, match=r'LocalChat needs xllamacpp: pip install "m3rag\[local\]"'):
        LocalChat(tiny_gguf)
