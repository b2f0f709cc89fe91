"""The cross-encoder against FlagEmbedding's FlagReranker and sentence-transformers' CrossEncoder, on real texts.

    python benchmarks/reranking.py [--data ../shared/data] [--models 6x384 24x1024] [--questions 20 100]
                                   [--contenders m3rag m3rag:dtype=bfloat16] [--runs 3]

Questions and passages are XQuAD's in six languages; each question comes with 20 passages, half of them whole
paragraphs and half first sentences, since real collections mix long and short. Every contender runs in a process of
its own, loads, scores eight pairs to warm up, then all pairs once. Contenders take turns, run by run, so that a drift
of the machine's speed meets all of them; the ratio is that of the medians. All cut at 512 tokens and compute in
float32 on a CPU. The weights are random, in the layout of BAAI/bge-reranker-v2-m3, with the real vocabulary; speed
does not depend on what they are. The rivals run at their default batch size (128 and 32), and at the fastest of
--batch-sizes, found on 10 questions. `cpu_seconds` count what all threads used, which says more than the clock where
other work runs beside; `differs` is the largest difference of a score from FlagEmbedding's.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
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

REPOSITORY = Path(__file__).parents[1]
LANGUAGES = ("en", "de", "es", "ru", "ar", "zh")
MAX_LENGTH = 512
PASSAGES = 20
TRIAL_QUESTIONS = 10
DEFAULTS = {"flagembedding": 128, "sentence-transformers": 32}

Pairs = list[tuple[str, str]]
Score = Callable[[Pairs], Sequence[float]]


def pairs_of(data: Path, questions: int) -> Pairs:
    """So many questions, each with `PASSAGES` passages of its language."""

    def read(language: str, name: str) -> list[str]:
        path = data / "retrieval" / "xquad" / "mono" / language / f"{name}.jsonl"
        return [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]

    rng = random.Random(0)
    texts = {language: (read(language, "queries"), read(language, "corpus")) for language in LANGUAGES}
    pairs = []
    for i in range(questions):
        queries, corpus = texts[LANGUAGES[i % len(LANGUAGES)]]
        found = rng.sample(corpus, PASSAGES)
        passages = [
            text if j % 2 else re.split(r"(?<=[.。!?؟])\s*", text, maxsplit=1)[0] for j, text in enumerate(found)
        ]
        pairs += [(queries[i], passage) for passage in passages]
    return pairs


def make_checkpoint(folder: Path, name: str) -> Path:
    """Random weights of so many layers x hidden size, with XLM-R's vocabulary and one label."""
    import torch
    from transformers import PreTrainedTokenizerFast, XLMRobertaConfig, XLMRobertaForSequenceClassification

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
        num_labels=1,
    )
    XLMRobertaForSequenceClassification(config).save_pretrained(path)
    names = {"bos": "<s>", "cls": "<s>", "eos": "</s>", "sep": "</s>", "pad": "<pad>", "unk": "<unk>", "mask": "<mask>"}
    PreTrainedTokenizerFast(
        tokenizer_file=str(ensure_mini() / "tokenizer.json"),
        model_input_names=["input_ids", "attention_mask"],
        **{f"{k}_token": v for k, v in names.items()},
    ).save_pretrained(path)
    return path


def contender(name: str, checkpoint: str) -> Score:
    """Something that scores: `m3rag[:option=value,...]`, `flagembedding:SIZE` or `sentence-transformers:SIZE`."""
    kind, _, given = name.partition(":")
    if kind == "m3rag":
        from m3rag.reranking import CrossEncoderReranker

        options: dict[str, Any] = dict(pair.split("=") for pair in given.split(",") if pair)
        return CrossEncoderReranker(checkpoint, device="cpu", max_length=MAX_LENGTH, **options).compute_score
    if kind == "flagembedding":
        from FlagEmbedding import FlagReranker

        flag = FlagReranker(checkpoint, use_fp16=False, devices="cpu")
        return partial(flag.compute_score, batch_size=int(given), max_length=MAX_LENGTH)
    import torch
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(checkpoint, device="cpu", max_length=MAX_LENGTH, activation_fn=torch.nn.Identity())
    return partial(model.predict, batch_size=int(given), show_progress_bar=False)


def worker(job: dict[str, Any]) -> None:
    """One measurement in this process, printed as JSON."""
    warnings.simplefilter("ignore")
    pairs = pairs_of(Path(job["data"]), job["questions"])
    score = contender(job["contender"], job["checkpoint"])
    score(pairs[:8])
    started, used = time.perf_counter(), time.process_time()
    scores = score(pairs)
    seconds, cpu = time.perf_counter() - started, time.process_time() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "cpu": cpu, "peak_mb": peak, "scores": [float(s) for s in scores]}))


def measure(**job: Any) -> dict[str, Any]:
    """Run one job in a fresh process."""
    command = [sys.executable, __file__, "--worker", json.dumps(job, default=str)]
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "true", "TQDM_DISABLE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(f"{job['contender']} failed:\n{done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    told = {key: value for key, value in result.items() if key != "scores"}
    print(job["contender"], job["questions"], told, file=sys.stderr)
    return result


def rivals(options: argparse.Namespace, checkpoint: Path) -> list[str]:
    """Each rival at its default batch size and at its fastest."""
    names = []
    for kind, default in DEFAULTS.items():
        took = {
            size: measure(
                data=options.data, checkpoint=checkpoint, questions=TRIAL_QUESTIONS, contender=f"{kind}:{size}"
            )["seconds"]
            for size in options.batch_sizes
        }
        names += dict.fromkeys([f"{kind}:{default}", f"{kind}:{min(took, key=lambda size: took[size])}"])
    return names


def speed(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """The table: one row a model, number of questions and contender."""
    rows = []
    for name in options.models:
        checkpoint = make_checkpoint(folder, name)
        contenders = [*rivals(options, checkpoint), *options.contenders]
        for questions in options.questions:
            found: dict[str, list[dict[str, Any]]] = {c: [] for c in contenders}
            for _ in range(options.runs):
                for c in contenders:
                    job = {"data": options.data, "checkpoint": checkpoint, "questions": questions}
                    found[c].append(measure(**job, contender=c))
            median = {c: statistics.median(run["seconds"] for run in runs) for c, runs in found.items()}
            # The first contender is FlagEmbedding's default.
            reference = found[contenders[0]][0]["scores"]
            for c, runs in found.items():
                differences = (abs(a - b) for a, b in zip(runs[0]["scores"], reference, strict=True))
                rows.append(
                    {
                        "model": name,
                        "pairs": len(reference),
                        "contender": c,
                        "seconds": round(median[c], 2),
                        "cpu_seconds": round(statistics.median(run["cpu"] for run in runs), 2),
                        "pairs_per_s": round(len(reference) / median[c], 1),
                        "m3rag_is_faster": round(median[c] / median[options.contenders[0]], 2),
                        "peak_mb": round(statistics.median(run["peak_mb"] for run in runs)),
                        "differs": f"{max(differences):.0e}",
                    }
                )
    return rows


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=REPOSITORY.parent / "shared" / "data")
    parser.add_argument("--models", nargs="+", default=["6x384"])
    parser.add_argument("--questions", nargs="+", type=int, default=[20, 100])
    parser.add_argument("--contenders", nargs="+", default=["m3rag"], help="m3rag[:option=value,...]")
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[4, 8, 16, 32, 64], help="the rivals'")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--worker", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options.worker)
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = speed(options, Path(folder))
    print("| " + " | ".join(rows[0]) + " |\n|" + "---|" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(map(str, row.values())) + " |")


if __name__ == "__main__":
    main()
