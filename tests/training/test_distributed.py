from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from m3rag.training.data import Example
from m3rag.training.settings import TrainingSettings
from m3rag.training.trainer import train

OPTIONS = {"batch_size": 9, "epochs": 1, "learning_rate": 1e-3, "sub_batch_tokens": 60, "warmup": 0}

WORKER = """
import json, sys, weakref
from pathlib import Path
import torch
from m3rag.training.data import load_examples
from m3rag.training.settings import TrainingSettings
from m3rag.training.trainer import train
from m3rag.training.workers import workers

torch.set_num_threads(1)
data, base, out, losses, settings = sys.argv[1:]
reports = []
with workers("cpu") as (is_first, device):
    group = weakref.ref(torch.distributed.group.WORLD)
    examples = load_examples(Path(data))
    train(examples, base, Path(out), settings=TrainingSettings(**json.loads(settings)), device=device,
          on_progress=lambda r: reports.append(r.loss))
    if is_first:
        Path(losses).write_text(json.dumps(reports))
assert group() is None, "its threads live on, and may abort the process at its end"
"""


@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="this torch has no gloo")
def test_two_workers_take_the_steps_of_one(small_checkpoint: Path, examples: list[Example], tmp_path: Path) -> None:
    data, script = tmp_path / "birds.jsonl", tmp_path / "worker.py"
    chosen = examples[:27]
    rows = [{"query": e.query, "pos": e.positives, "neg": e.negatives[:1]} for e in chosen]
    data.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    script.write_text(WORKER, encoding="utf-8")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    arguments = [str(data), str(small_checkpoint), str(tmp_path / "two"), str(tmp_path / "losses"), json.dumps(OPTIONS)]
    done = subprocess.run([*launcher, *arguments], check=False, timeout=250, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

    losses: list[dict[str, float] | None] = []
    settings = TrainingSettings(**OPTIONS)  # type: ignore[arg-type]
    train(
        data, str(small_checkpoint), tmp_path / "one", settings=settings, device="cpu",
        on_progress=lambda report: losses.append(report.loss),
    )  # fmt: skip
    together = json.loads((tmp_path / "losses").read_text())
    assert len(together) == len(losses) == 4
    for one, two in zip(losses[1:], together[1:], strict=True):
        assert two == pytest.approx(one, abs=1e-4)
    alone, both = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    base = load_file(small_checkpoint / "model.safetensors")
    far = max(float((alone[name] - base[name]).abs().max()) for name in alone)
    # Whatever is added to all keys leaves attention as it is: their gradient is rounding, of which Adam makes a step.
    apart = {n: float((alone[n] - both[n]).abs().max()) for n in alone if not n.endswith("key.bias")}
    assert far > 1e-3
    assert max(apart.values()) < 1e-5, apart


RESUMED = """
import json, sys
from pathlib import Path
import torch
from m3rag.training.settings import TrainingSettings
from m3rag.training.trainer import train
from m3rag.training.workers import workers

class StoppedError(Exception):
    pass

def stop(report):
    if report.step == 2:
        raise StoppedError

torch.set_num_threads(1)
data, base, folder, settings = sys.argv[1:]
settings = TrainingSettings(**json.loads(settings))
with workers("cpu") as (_, device):
    for name, on_progress in (("whole", None), ("stopped", stop), ("stopped", None)):
        try:
            train(Path(data), base, Path(folder, name), settings=settings, device=device, on_progress=on_progress)
        except StoppedError:
            pass
        torch.distributed.barrier()
"""


@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="this torch has no gloo")
def test_two_workers_go_on_with_the_dropout_of_each(
    small_checkpoint: Path, examples: list[Example], tmp_path: Path
) -> None:
    data, script = tmp_path / "birds.jsonl", tmp_path / "worker.py"
    rows = [{"query": e.query, "pos": e.positives, "neg": e.negatives} for e in examples[:27]]
    data.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    script.write_text(RESUMED, encoding="utf-8")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    options = json.dumps({**OPTIONS, "dropout": 0.3, "save_every": 2})
    arguments = [str(data), str(small_checkpoint), str(tmp_path), options]
    done = subprocess.run([*launcher, *arguments], check=False, timeout=250, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    whole, stopped = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "stopped"))
    assert [name for name in whole if not torch.equal(whole[name], stopped[name])] == []
