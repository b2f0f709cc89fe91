"""A real GGUF file of a model that says what we know it will: each token leads to the next by a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from m3rag.answering.local import LocalChat

SAYS: Mapping[str, tuple[str, ...]] = {
    "?": ("Ducks", " eat", " pond", " weed", " [1]."),
    "!": ("NOT_IN", "_DOCUMENTS"),
    ".": ("quack", "quack"),  # leads to itself, so it never ends
    ";": (),
}
"""What the model replies to a prompt by its last character."""

# The last message ends the prompt, so that its last character chooses the reply.
TEMPLATE = "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}{% endfor %}"


def write_gguf(path: Path, *, trained_tokens: int = 65_536, template: str | None = TEMPLATE) -> None:
    """A llama of one layer whose attention and feed-forward are zero: what is left is a table of bigrams."""
    from gguf import GGUFWriter, TokenType

    words = sorted({word for reply in SAYS.values() for word in reply})
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *words]
    kinds = [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL, *[TokenType.BYTE] * 256]
    kinds += [TokenType.NORMAL] * len(words)
    vocabulary = {token: number for number, token in enumerate(tokens)}
    width = -(-len(tokens) // 32) * 32  # one dimension a token

    following = np.zeros((len(tokens), width), np.float32)
    following[vocabulary["</s>"]] = 0.1  # where the table says nothing
    for last, reply in SAYS.items():
        chain = [f"<0x{ord(last):02X}>", *reply]
        for token, after in zip(chain, [*reply, "</s>"], strict=True):
            if (token, after) != ("quack", "</s>"):
                following[vocabulary[after], vocabulary[token]] = 1.0

    heads, feed_forward = width // 32, 32
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(trained_tokens)
    writer.add_embedding_length(width)
    writer.add_block_count(1)
    writer.add_feed_forward_length(feed_forward)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_rope_dimension_count(32)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([token.replace(" ", "\u2581") for token in tokens])
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types(kinds)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(False)
    if template is not None:
        writer.add_chat_template(template)
    writer.add_tensor("token_embd.weight", np.eye(len(tokens), width, dtype=np.float32))
    writer.add_tensor("output.weight", following)
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(width, np.float32))
    for name, rows, columns in (
        ("attn_q", width, width),
        ("attn_k", width, width),
        ("attn_v", width, width),
        ("attn_output", width, width),
        ("ffn_gate", feed_forward, width),
        ("ffn_up", feed_forward, width),
        ("ffn_down", width, feed_forward),
    ):
        writer.add_tensor(f"blk.0.{name}.weight", np.zeros((rows, columns), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="session")
def gguf_writer() -> Callable[..., None]:
    """`write_gguf`; skips where what it or a model of it takes is not installed."""
    pytest.importorskip("gguf", reason="the GGUF file of these tests is written by the package gguf")
    pytest.importorskip("xllamacpp", reason='models are run by xllamacpp: pip install "m3rag[local]"')
    return write_gguf


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory, gguf_writer: Callable[..., None]) -> Path:
    """The file; its name has what names of files may have."""
    path = tmp_path_factory.mktemp("models") / "tiny Ente 鸭.gguf"
    gguf_writer(path)
    return path


@pytest.fixture(scope="session")
def short_gguf(tmp_path_factory: pytest.TempPathFactory, gguf_writer: Callable[..., None]) -> Path:
    """The same, trained with texts of at most 4,096 tokens."""
    path = tmp_path_factory.mktemp("models") / "short.gguf"
    gguf_writer(path, trained_tokens=4096)
    return path


@pytest.fixture(scope="session")
def llm(tiny_gguf: Path) -> Iterator[LocalChat]:
    """The model of `tiny_gguf`, loaded once for all tests that leave it alive."""
    with LocalChat(tiny_gguf, threads=1) as loaded:
        yield loaded
