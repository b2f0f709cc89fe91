"""Make what ships of `mini`: the backbone that its training starts from, then the files for the package.

    python tools/mini.py backbone FOLDER
    python tools/mini.py ship HEADS MERGED [--out FOLDER]

HEADS is what `m3rag train --base FOLDER --heads-only` made, MERGED what `m3rag train --base HEADS --lora --merge`
made: of the one the heads ship, of the other what it moved in the backbone, as deltas of low rank.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

from m3rag.encoder.checkpoint import Checkpoint
from m3rag.encoder.deltas import factorise
from m3rag.encoder.mini import DELTAS, HEADS, RECIPE, SHIPPED, write_backbone
from m3rag.encoder.model import load_heads
from m3rag.errors import M3RagError, ModelError

WEIGHTS = "model.safetensors"
RECORD = "training.json"


def backbone(folder: Path) -> None:
    """Write multilingual-e5-small as bundled, without heads, in a checkpoint's layout."""
    folder.mkdir(parents=True)
    write_backbone(folder)
    shutil.copyfile(SHIPPED / RECIPE, folder / RECIPE)


def ship(heads: Path, merged: Path, out: Path) -> None:
    """Write the heads of one training, the deltas of another, and the records of both.

    Raises:
        ModelError: If `merged` was not trained from `heads`, or moved more of the backbone than deltas of its rank.
    """
    records = {"heads": _record(heads), "deltas": _record(merged)}
    if Path(records["deltas"]["base"]).name != heads.name:
        raise ModelError(f"{merged} was trained from {records['deltas']['base']}: give that folder, not {heads}")
    with tempfile.TemporaryDirectory() as bare:
        write_backbone(Path(bare))
        deltas = factorise(
            load_file(Path(bare) / WEIGHTS),
            load_file(merged / WEIGHTS),
            rank=records["deltas"]["settings"]["lora_rank"],
        )
    save_file(deltas, out / DELTAS)
    save_file(_heads(heads), out / HEADS)
    (out / RECORD).write_text(json.dumps(records, indent=2) + "\n", encoding="utf-8")
    for name in (HEADS, DELTAS):
        sys.stdout.write(f"{out / name}: {(out / name).stat().st_size:,} bytes\n")


def _heads(folder: Path) -> dict[str, npt.NDArray[np.float16]]:
    checkpoint = Checkpoint.find(str(folder))
    lexical, colbert = load_heads(checkpoint, hidden=checkpoint.config()["hidden_size"])
    return {
        f"{name}.{part}": tensor.detach().numpy().astype(np.float16)
        for name, head in (("sparse_linear", lexical), ("colbert_linear", colbert))
        for part, tensor in head.named_parameters()
    }


def _record(folder: Path) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"{folder} is no folder of `m3rag train`: it lacks {RECORD}") from error
    return record


def main() -> None:
    """Run one of the two steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = parser.add_subparsers(required=True, dest="step")
    steps.add_parser("backbone").add_argument("folder", type=Path)
    shipping = steps.add_parser("ship")
    shipping.add_argument("heads", type=Path)
    shipping.add_argument("merged", type=Path)
    shipping.add_argument("--out", type=Path, default=SHIPPED, help="by default the package in this checkout")
    options = parser.parse_args()
    try:
        if options.step == "backbone":
            backbone(options.folder)
        else:
            ship(options.heads, options.merged, options.out)
    except (M3RagError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
