"""`m3rag export`: a model as an ONNX file, in float32 or, if the loss is small enough, in int8."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from m3rag.cli.console import command, note, print_json
from m3rag.cli.demo import DOCUMENTS
from m3rag.cli.options import Debug, Json

if TYPE_CHECKING:
    from m3rag.encoder import M3Encoder
    from m3rag.encoder.checkpoint import Checkpoint
    from m3rag.encoder.onnx.gate import Figures

SAMPLE_CHUNKS = 200


@command
def export(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="mini, BAAI/bge-m3 or a checkpoint folder.", show_default=False)
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="A new folder for a copy to use outside m3rag.")
    ] = None,
    int8: Annotated[bool, typer.Option("--int8", help="Layers in int8, measured against float32.")] = False,
    texts: Annotated[
        Path | None, typer.Option(help="Texts to measure on, one a line, beside the sample documents.")
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Export a model for ONNX Runtime.

    It is put into the cache, where M3Encoder's backends `onnx` and `onnx-int8` find it.
    """
    from m3rag._lazy import require_extra
    from m3rag.encoder.checkpoint import Checkpoint
    from m3rag.encoder.onnx.export import appearing, cached_export, ensure_export
    from m3rag.errors import InputError, ModelError

    if out is not None and out.exists():
        raise InputError(f"{out} is there already: give a new folder with --out")
    if texts is not None and not int8:
        raise InputError("--texts is what int8 is measured on: give --int8 too")
    require_extra("m3rag export", *(["onnx", "onnxruntime"] if int8 else ["onnx"]), extra="onnx")
    checkpoint = Checkpoint.find(model)
    figures = None
    if int8:
        figures = _measured_export(checkpoint, texts)
        folder, misses = cached_export(checkpoint, int8=True), figures.misses()
    else:
        folder, misses = ensure_export(checkpoint), []
    if out is not None and not misses:
        with appearing(out.absolute()) as work:
            shutil.copytree(folder, work, dirs_exist_ok=True)
    if as_json:
        told = None if misses else str((out or folder).absolute())
        print_json("export", {"model": model, "folder": told, "figures": figures and asdict(figures), "misses": misses})
    elif figures is not None:
        _print(figures)
    if misses:
        raise ModelError(f"the int8 export of {model!r} loses too much and is not kept: {', '.join(misses)}")
    note(f"exported {model} to {(out or folder).absolute()}")


def _measured_export(checkpoint: Checkpoint, texts: Path | None) -> Figures:
    from m3rag.encoder import M3Encoder
    from m3rag.encoder.onnx.gate import Trial
    from m3rag.encoder.onnx.load import export_int8

    encoder = M3Encoder(checkpoint.name, device="cpu", dtype="float32", colbert_dtype="float32")
    sample = [*_sample_chunks(encoder), *_lines(texts)]
    note(f"measuring {checkpoint.name} in float32 and in int8 on {len(sample)} texts ...")
    return export_int8(checkpoint, encoder, Trial.of(sample))


def _sample_chunks(encoder: M3Encoder) -> list[str]:
    """Chunks of the sample documents, at even distances."""
    from m3rag.chunking import Chunker
    from m3rag.reading import read

    folder = next((folder for folder in DOCUMENTS if folder.is_dir()), None)
    documents = [read(path) for path in sorted(folder.iterdir())] if folder else []
    chunks = [chunk.text for document in documents for chunk in Chunker(overlap_tokens=0).split(document, encoder)]
    wanted = min(SAMPLE_CHUNKS, len(chunks))
    return [chunks[i * len(chunks) // wanted] for i in range(wanted)]


def _lines(path: Path | None) -> list[str]:
    from m3rag.errors import InputError

    if path is None:
        return []
    try:
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"the texts in {path} cannot be read: {error}; give a UTF-8 file of one text a line"
        ) from error


def _print(figures: Figures) -> None:
    """The figures as a table: name, value, bound."""
    from m3rag.encoder.onnx.gate import AT_LEAST, AT_MOST

    for name, value in asdict(figures).items():
        shown = f"{value:.4f}" if isinstance(value, float) else str(value)
        bound = f">= {AT_LEAST[name]}" if name in AT_LEAST else f"<= {AT_MOST[name]}" if name in AT_MOST else ""
        verdict = "" if not bound else "refused" if any(m.startswith(f"{name} ") for m in figures.misses()) else "ok"
        typer.echo(f"{name.replace('_', ' '):<20} {shown:>9}  {bound:<9} {verdict}".rstrip())
