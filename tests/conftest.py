"""What all tests share: where the real data lies, and small real checkpoints."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from . import loaded_once

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # So it is in a shell's background jobs, and every process that a test interrupts would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):
    # Workers whose threads fight for the same cores are slower than one process. Before torch is imported.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))

DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    # Before each test, as its module, or a fixture before it, may have imported a loader.
    loaded_once.share()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the checkout."""
    if not DATA.is_dir():
        pytest.skip("the real data (../shared/data) is not on this machine")
    return DATA


@pytest.fixture(scope="session")
def multilingual_texts(shared_data: Path) -> list[str]:
    """Real paragraphs and questions in six languages, 33 of each kind and language at most."""
    texts: list[str] = []
    for language in ("en", "de", "es", "ru", "ar", "zh"):
        for name, count in (("corpus", 16), ("queries", 17)):
            path = shared_data / "retrieval" / "xquad" / "mono" / language / f"{name}.jsonl"
            lines = path.read_text(encoding="utf-8").splitlines()
            texts += [json.loads(line)["text"] for line in lines[:: len(lines) // count][:count]]
    return texts


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random M3 checkpoint in the layout of BAAI/bge-m3, with the real XLM-R vocabulary."""
    torch = pytest.importorskip("torch")
    from transformers import PreTrainedTokenizerFast, XLMRobertaConfig, XLMRobertaModel

    from m3rag.encoder.mini import ensure_mini

    folder = tmp_path_factory.mktemp("tiny-m3")
    torch.manual_seed(7)
    config = XLMRobertaConfig(
        vocab_size=250002,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=8194,
        type_vocab_size=1,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
        layer_norm_eps=1e-5,
        initializer_range=0.2,  # times sqrt(64): as strong a mixing as the trained 1,024-wide layers do
    )
    XLMRobertaModel(config, add_pooling_layer=False).save_pretrained(folder)
    for name, outputs in (("sparse_linear.pt", 1), ("colbert_linear.pt", 64)):
        torch.save(torch.nn.Linear(64, outputs).half().state_dict(), folder / name)
    specials = {
        "bos": "<s>",
        "cls": "<s>",
        "eos": "</s>",
        "sep": "</s>",
        "pad": "<pad>",
        "unk": "<unk>",
        "mask": "<mask>",
    }
    PreTrainedTokenizerFast(
        tokenizer_file=str(ensure_mini() / "tokenizer.json"), **{f"{k}_token": v for k, v in specials.items()}
    ).save_pretrained(folder)
    return folder


@pytest.fixture
def index_at(tmp_path: Path) -> Iterator[Callable[[str], Any]]:
    """Where an index of a kind lies: `memory`, `edge`, `chroma`, or `qdrant`, a client that is its own server."""
    qdrant_client = pytest.importorskip("qdrant_client", reason="the extra qdrant is not installed")
    from m3rag.store import QdrantStore
    from m3rag.store.place import Place

    client = qdrant_client.QdrantClient(":memory:")
    places: dict[str, Any] = {
        "memory": ":memory:",
        "edge": tmp_path / "index",
        "chroma": f"chroma:{tmp_path / 'chroma'}",
        "qdrant": Place("qdrant", None, lambda: QdrantStore, ":memory:", {"collection": "docs", "client": client}, {}),
    }
    yield places.__getitem__
    client.close()


@pytest.fixture
def shut(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Shuts a folder: nothing in it may be looked at. Modes would not do: the tests may run as root."""
    stat = os.stat

    def shut(folder: Path) -> None:
        def denied(path: Any, *args: Any, **options: Any) -> os.stat_result:
            if not isinstance(path, int) and folder in Path(os.fsdecode(path)).absolute().parents:
                raise PermissionError(13, "Permission denied", os.fsdecode(path))
            return stat(path, *args, **options)

        monkeypatch.setattr(os, "stat", denied)

    return shut
