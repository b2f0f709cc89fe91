"""The encoder against FlagEmbedding: speed, memory, scaling, on real texts and random weights.

    python benchmarks/encoder.py [--data ../shared/data] [--models 6x384 24x1024] [--texts 200 2000]
                                 [--contenders m3rag m3rag:dtype=bfloat16 m3rag-int8 bge-m3-lite] [--runs 3]
    python benchmarks/encoder.py --scaling 200 2000 20000
    python benchmarks/encoder.py --lexical
    python benchmarks/encoder.py --long

Every contender runs in a process of its own, loads, encodes eight texts to warm up, then encodes all
texts once and says how long that took and how much memory the process needed at most. Contenders take
turns, run by run, so that a drift of the machine's speed meets all of them; the ratio is that of the
medians. All give all three representations, at FlagEmbedding's default max_length of 512. The weights
are random, in the layout of BAAI/bge-m3, with the real vocabulary; speed does not depend on what they
are. The first contender is FlagEmbedding with its default batch size, which takes long for 2,000 texts at
24x1024 (--without-default), the second with the fastest of --batch-sizes, found on 200 texts. bge-m3-lite
(`lite.py`) computes BGE-M3's size only.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

REPOSITORY = Path(__file__).parents[1]
LANGUAGES = ("en", "de", "es", "ru", "ar", "zh")
MAX_LENGTH = 512
"""FlagEmbedding's default for passages."""

Encode = Callable[[list[str]], object]
Lengths = Any
"""An integer array, one length a text."""


def texts_of(data: Path, n: int) -> list[str]:
    """Real texts of mixed length: of 40, 24 questions and 8 paragraphs in six languages, 8 abstracts."""
    retrieval = data / "retrieval"

    def read(*parts: str) -> list[str]:
        path = retrieval.joinpath(*parts)
        return [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]

    questions = [read("xquad", "mono", language, "queries.jsonl") for language in LANGUAGES]
    paragraphs = [read("xquad", "mono", language, "corpus.jsonl") for language in LANGUAGES]
    pools = [
        (24, itertools.cycle(itertools.chain(*zip(*questions, strict=True)))),
        (8, itertools.cycle(itertools.chain(*zip(*paragraphs, strict=True)))),
        (8, itertools.cycle(read("scifact", "corpus.jsonl"))),
    ]
    texts = [next(pool) for _ in range(-(-n // 40)) for count, pool in pools for _ in range(count)]
    order = np.random.default_rng(0).permutation(len(texts))[:n]
    return [texts[i] for i in order]


def make_checkpoint(folder: Path, name: str) -> Path:
    """Random weights of so many layers x hidden size, with XLM-R's vocabulary."""
    import torch
    from transformers import PreTrainedTokenizerFast, XLMRobertaConfig, XLMRobertaModel

    from m3rag.encoder.mini import ensure_mini

    path = folder / name
    layers, hidden = map(int, name.split("x"))
    torch.manual_seed(0)
    config = XLMRobertaConfig(
        vocab_size=250002,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=12 if hidden == 384 else hidden // 64,
        intermediate_size=4 * hidden,
        max_position_embeddings=8194,
        type_vocab_size=1,
        pad_token_id=1,
        layer_norm_eps=1e-5,
        initializer_range=1.6 / hidden**0.5,
    )
    XLMRobertaModel(config, add_pooling_layer=False).save_pretrained(path)
    for file, outputs in (("sparse_linear.pt", 1), ("colbert_linear.pt", hidden)):
        torch.save(torch.nn.Linear(hidden, outputs).half().state_dict(), path / file)
    names = {"bos": "<s>", "cls": "<s>", "eos": "</s>", "sep": "</s>", "pad": "<pad>", "unk": "<unk>", "mask": "<mask>"}
    PreTrainedTokenizerFast(
        tokenizer_file=str(ensure_mini() / "tokenizer.json"), **{f"{k}_token": v for k, v in names.items()}
    ).save_pretrained(path)
    return path


def contender(name: str, checkpoint: str, length: int) -> Encode:
    """Something that encodes: `m3rag[:option=value,...]`, `m3rag-int8`, `bge-m3-lite`, `flagembedding:BATCH_SIZE`."""
    kind, _, given = name.partition(":")
    if kind == "m3rag":
        from m3rag.encoder import M3Encoder

        options: dict[str, Any] = dict(pair.split("=") for pair in given.split(",") if pair)
        return partial(M3Encoder(checkpoint, **options).encode_documents, max_length=length)
    if kind == "m3rag-int8":
        return partial(_int8(Path(checkpoint)), max_length=length)
    if kind == "bge-m3-lite":
        from lite import encode_by_lite

        return encode_by_lite(Path(checkpoint), max_length=length)
    from FlagEmbedding import BGEM3FlagModel

    model = BGEM3FlagModel(checkpoint, devices="cpu" if not _has_cuda() else "cuda:0")
    size = int(given or 256)
    return lambda texts: model.encode(
        texts, batch_size=size, max_length=length, return_dense=True, return_sparse=True, return_colbert_vecs=True
    )


def _int8(checkpoint: Path) -> Callable[..., object]:
    """The int8 backend past its gate: of random weights nobody asks how well they rank."""
    import torch

    from m3rag.encoder import M3Encoder
    from m3rag.encoder.checkpoint import Checkpoint
    from m3rag.encoder.engine import DeviceEngine
    from m3rag.encoder.onnx.export import write_export
    from m3rag.encoder.onnx.session import OnnxNetwork

    folder = checkpoint / "int8"
    if not folder.exists():
        folder.mkdir()
        write_export(Checkpoint.find(str(checkpoint)), folder, int8=True)
    encoder = M3Encoder(str(checkpoint), backend="onnx")
    assert isinstance(encoder.engine, DeviceEngine)
    encoder.engine.network = OnnxNetwork(folder, device=torch.device("cpu"))
    return encoder.encode_documents


def worker(job: dict[str, Any]) -> None:
    """One measurement in this process, printed as JSON."""
    warnings.simplefilter("ignore")
    texts = texts_of(Path(job["data"]), job["texts"]) if "texts" in job else ["several ducks swim " * 6000]
    encode = contender(job["contender"], job["checkpoint"], MAX_LENGTH if "texts" in job else 8192)
    loaded = _peak_mb()
    if not texts:
        print(json.dumps({}))
        return
    encode(texts[:8] if len(texts) > 1 else ["ducks"])
    started = time.perf_counter()
    encode(texts)
    print(json.dumps({"seconds": time.perf_counter() - started, "loaded_mb": loaded, "peak_mb": _peak_mb()}))


def _peak_mb() -> float:
    """The most memory of this process, on a GPU that of the GPU; getrusage would count what its parent held, too."""
    if "torch" in sys.modules and _has_cuda():  # bge-m3-lite does without it
        import torch

        return torch.cuda.max_memory_allocated() / 1e6
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    (line,) = (line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def measure(job: dict[str, Any]) -> dict[str, float]:
    """Run one job in a fresh process."""
    command = [sys.executable, __file__, "--worker", json.dumps(job)]
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "true", "TQDM_DISABLE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(f"{job['contender']} failed:\n{done.stderr[-2000:]}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def tokens_of(data: Path, n: int) -> Lengths:
    """Tokens of the texts, specials included."""
    from m3rag.encoder.mini import ensure_mini
    from m3rag.encoder.tokenizer import Tokenizer

    tokenizer = Tokenizer(ensure_mini() / "tokenizer.json")
    return np.array([len(i) for i in tokenizer.encode(texts_of(data, n), max_length=MAX_LENGTH).ids])


def matrix_rate(hidden: int, dtype: str) -> float:
    """The machine's best rate of a linear layer of the network's own shapes, GFLOP/s, by any product that torch has."""
    import torch

    from m3rag.encoder.packed_linear import PackedLinear

    device = "cuda" if _has_cuda() else "cpu"
    sizes = (8192, 16384) if device == "cuda" else (512, 1024, 2048)
    best = 0.0
    for rows, outputs in itertools.product(sizes, (hidden, 3 * hidden, 4 * hidden)):
        layer = torch.nn.Linear(hidden, outputs, dtype=getattr(torch, dtype), device=device).requires_grad_(False)
        states = torch.randn(rows, hidden, dtype=getattr(torch, dtype), device=device)
        for product in [layer] if device == "cuda" else [layer, PackedLinear(layer)]:
            for _ in range(20):
                started = time.perf_counter()
                product(states)
                if device == "cuda":
                    torch.cuda.synchronize()
                best = max(best, 2 * rows * hidden * outputs / (time.perf_counter() - started) / 1e9)
    return best


def dtype_of(contender: str) -> str | None:
    """What a contender's products are in; None for bytes."""
    if contender == "m3rag-int8":
        return None
    named = [
        pair.removeprefix("dtype=") for pair in contender.partition(":")[2].split(",") if pair.startswith("dtype=")
    ]
    return named[0] if named else "float16" if _has_cuda() and "onnx" not in contender else "float32"


def work(lengths: Lengths, name: str) -> float:
    """Floating-point operations of the matrix products of one pass over real tokens."""
    layers, hidden = map(int, name.split("x"))
    return float(layers * (24 * hidden**2 * lengths.sum() + 4 * hidden * (lengths.astype(float) ** 2).sum()))


def speed(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """The table of contenders, one row a model, number of texts and contender."""
    rows = []
    for name in options.models:
        checkpoint = str(make_checkpoint(folder, name))
        base = {"data": str(options.data), "checkpoint": checkpoint}
        trial = {**base, "texts": 200}
        sizes = {
            size: measure({**trial, "contender": f"flagembedding:{size}"})["seconds"] for size in options.batch_sizes
        }
        best = min(sizes, key=lambda size: sizes[size])
        default = [] if options.without_default else ["flagembedding:256"]
        contenders = [*default, f"flagembedding:{best}", *options.contenders]
        kinds = {c: dtype_of(c) for c in contenders}
        rates = {kind: matrix_rate(int(name.split("x")[1]), kind) for kind in set(kinds.values()) if kind}
        print(name, "GFLOP/s:", rates, file=sys.stderr)
        for c in options.contenders:
            measure({**base, "texts": 0, "contender": c})  # makes its exports, which are not to be measured
        for n in options.texts:
            lengths = tokens_of(options.data, n)
            found: dict[str, list[dict[str, float]]] = {c: [] for c in contenders}
            for _ in range(options.runs):
                for c in contenders:
                    found[c].append(measure({**base, "texts": n, "contender": c}))
                    print(name, n, c, found[c][-1], file=sys.stderr)
            median = {c: statistics.median(run["seconds"] for run in runs) for c, runs in found.items()}
            for c in contenders:
                kind = kinds[c]
                rows.append(
                    {
                        "model": name,
                        "texts": n,
                        "tokens": int(lengths.sum()),
                        "contender": c,
                        "seconds": round(median[c], 2),
                        "tokens_per_s": round(lengths.sum() / median[c]),
                        "vs_default": round(median[default[0]] / median[c], 2) if default else "",
                        "vs_best": round(median[f"flagembedding:{best}"] / median[c], 2),
                        "of_matrix_rate": round(work(lengths, name) / median[c] / rates[kind] / 1e9, 2) if kind else "",
                        "peak_mb": round(statistics.median(run["peak_mb"] for run in found[c])),
                    }
                )
    return rows


def scaling(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Time per token as the number of texts grows."""
    checkpoint = str(make_checkpoint(folder, "6x384"))
    base = {"data": str(options.data), "checkpoint": checkpoint, "contender": "m3rag"}
    found: dict[int, list[float]] = {n: [] for n in options.scaling}
    for _ in range(options.runs):
        for n in options.scaling:
            found[n].append(measure({**base, "texts": n})["seconds"])
            print(n, found[n][-1], file=sys.stderr)
    rows = []
    for n, seconds in found.items():
        lengths = tokens_of(options.data, n)
        # Attention is quadratic in a text's length; what is compared is time by work, mixes being alike.
        rows.append(
            {
                "texts": n,
                "tokens": int(lengths.sum()),
                "us_per_token": round(statistics.median(seconds) / lengths.sum() * 1e6, 2),
                "mean_tokens": round(float(lengths.mean()), 1),
            }
        )
    return rows


def lexical(_: argparse.Namespace, __: Path) -> list[dict[str, Any]]:
    """From weights to lexical matrix, 200 texts of 200 tokens, against FlagEmbedding's loop."""
    from m3rag.encoder.lexical import LexicalRows, max_per_token

    rng = np.random.default_rng(0)
    ids = rng.zipf(1.3, (200, 200)) % 250_000 + 4
    weights = (rng.random((200, 200)) - 0.2).clip(0).astype(np.float32)
    owners = np.repeat(np.arange(200), 200)

    def ours() -> None:
        rows = LexicalRows(200, 250_002)
        rows.add(np.arange(200), max_per_token(owners, ids.ravel(), weights.ravel()))
        rows.to_csr()

    def reference() -> list[dict[str, float]]:
        # What M3Embedder does with a batch: a dict a text, a Python step a token.
        unused, found = {0, 1, 2, 3}, []
        for of_text, ids_of_text in zip(weights, ids.tolist(), strict=True):
            best: dict[str, float] = {}
            for weight, token in zip(of_text, ids_of_text, strict=True):
                if token not in unused and weight > 0 and weight > best.get(str(token), 0):
                    best[str(token)] = weight
            found.append(best)
        return found

    took = {}
    for name, step in (("m3rag", ours), ("reference", reference)):
        times = []
        for _ in range(30):
            started = time.perf_counter()
            step()
            times.append(time.perf_counter() - started)
        took[name] = statistics.median(times)
    return [
        {"contender": n, "ms": round(t * 1e3, 2), "ratio": round(took["reference"] / t, 1)} for n, t in took.items()
    ]


def long(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """One text of 8,192 tokens at the real size: peak memory of the whole process."""
    checkpoint = str(make_checkpoint(folder, "24x1024"))
    rows = []
    for name in ("m3rag", "flagembedding:1", *options.contenders):
        found = measure({"checkpoint": checkpoint, "contender": name})
        rows.append({"contender": name, **{key: round(value, 1) for key, value in found.items()}})
    return rows


def main() -> None:
    """Run the parts asked for and print a Markdown table of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=REPOSITORY.parent / "shared" / "data")
    parser.add_argument("--models", nargs="+", default=["6x384", "24x1024"])
    parser.add_argument("--texts", nargs="+", type=int, default=[200, 2000])
    parser.add_argument(
        "--contenders", nargs="+", default=["m3rag"], help="m3rag[:option=value,...], m3rag-int8, bge-m3-lite"
    )
    parser.add_argument("--without-default", action="store_true", help="no FlagEmbedding with its default batch size")
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[4, 8, 16, 32, 64], help="FlagEmbedding's")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--scaling", nargs="+", type=int, metavar="N")
    parser.add_argument("--lexical", action="store_true")
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--worker", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options.worker)
        return
    part = scaling if options.scaling else lexical if options.lexical else long if options.long else speed
    with tempfile.TemporaryDirectory() as folder:
        print_table(part(options, Path(folder)))


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """Rows as Markdown."""
    columns = list(rows[0])
    print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    for row in rows:
        print("| " + " | ".join(str(row[column]) for column in columns) + " |")


if __name__ == "__main__":
    main()
