"""A corpus through Ray Data: each actor holds one encoder and turns shards of texts into files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from m3rag import errors
from m3rag._alone import LOCK, writing_alone
from m3rag.bulk.corpus import Fields, Shard, ShardReader, find_files, plan_shards
from m3rag.bulk.manifest import MANIFEST, PARTIAL, EncodedManifest
from m3rag.bulk.output import is_finished, shard_path, write_shard
from m3rag.bulk.session import Actors, import_ray, plain, session, share_out
from m3rag.encoder.inputs import Role, require_role
from m3rag.errors import ConfigurationError, InputError, M3RagError, ModelError
from m3rag.types import ModelInfo

if TYPE_CHECKING:
    from m3rag.encoder import M3Encoder

Progress = Callable[[int, int], None]
"""Called with the number of texts that are finished, and of all texts."""
ATTEMPTS = 3
"""Workers that one shard may kill before the run gives up."""


@dataclass(frozen=True, slots=True)
class EncodeReport:
    """What `encode_corpus` did.

    Attributes:
        texts: In the whole output.
        shards: Files that hold them.
        kept: Of these, those that an earlier run had finished.
        cut: Texts, not counting those of kept shards, that were longer than `max_length`.
    """

    texts: int
    shards: int
    kept: int
    cut: int


def encode_corpus(
    input: Path | str,
    out: Path | str,
    *,
    model: str,
    text_field: str = "text",
    id_field: str = "id",
    role: Role = "document",
    max_length: int | None = None,
    concurrency: int | None = None,
    shard_bytes: int = 1 << 18,
    encoder_options: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> EncodeReport:
    """Encode all texts of JSONL or Parquet files into a folder of Parquet files; `read_encoded` reads it.

    A run that was stopped in any way is finished by the same call: shards appear wholly or not at all,
    and those that are there are kept. Uses the Ray session there is, or the cluster that `RAY_ADDRESS`
    names, else starts one on this machine, without Ray's usage statistics, and stops it at the end.
    On a cluster all nodes must see both paths.

    The columns written are `id` (string), `dense` (`dense_dim` float32), `lexical_ids` and
    `lexical_weights` (lists of int32 and float32, sorted by id), `tokens` (int32) and `colbert` (binary:
    `tokens` x `colbert_dim` float16, little-endian).

    Args:
        input: A `.jsonl` or `.parquet` file, or a folder of them. Ids must be unique strings or whole
            numbers, texts strings; all of them are checked before the first is encoded.
        out: A new or empty folder, or that of the run to finish.
        model: `mini`, a hub id or a checkpoint folder.
        text_field: The field or column of the text.
        id_field: The field or column of the id.
        role: Whether the texts are questions or passages, for models that tell them apart.
        max_length: Tokens beyond which a text is cut; by default the model's own limit.
        concurrency: Encoders at work at once; by default one a GPU, or one a machine without GPUs.
        shard_bytes: Bytes of text in one output file. An actor holds one shard in memory; with BGE-M3
            its output is about 500 times as large.
        encoder_options: Further options of `M3Encoder`, such as `dtype`.
        progress: Called whenever a shard is finished, and once at the start.

    Raises:
        InputError: If the input or a row of it cannot be used, or `out` holds something else.
        ConfigurationError: If an option is out of range, or `out` was begun with others.
        ImportError: If Ray Data is not installed.
        ModelError: If the model cannot be had, or its actors die.
    """
    fixed = {"model", "device", "max_length", "colbert_dtype"} & set(encoder_options or {})
    if fixed:
        raise ConfigurationError(f"encoder_options cannot set {', '.join(sorted(fixed))}: that is encode_corpus's own")
    if shard_bytes < 1:
        raise ConfigurationError(f"shard_bytes must be at least 1, got {shard_bytes}")
    require_role(role)
    ray = import_ray()
    # Workers run in folders of their own.
    source, folder = Path(input).expanduser().resolve(), Path(out).expanduser().resolve()
    if source.is_dir() and folder.is_relative_to(source):
        raise InputError(f"{folder} lies in the input {source} and would become input itself: give another folder")
    _refuse_foreign(folder)
    fields = Fields(id=id_field, text=text_field)
    shards = plan_shards(find_files(source), fields, shard_bytes=shard_bytes)
    with session(ray):
        actors = share_out([node["Resources"] for node in ray.nodes() if node["Alive"]], concurrency)
        spec = EncoderSpec(
            model=str(Path(model).resolve()) if model != "mini" and Path(model).is_dir() else model,
            role=role,
            max_length=max_length,
            device="cuda" if actors.gpus else "cpu",
            options=dict(encoder_options or {}),
        )
        info, dtype, length = _describe(ray, actors, spec)
        manifest = EncodedManifest(
            model=info,
            dtype=dtype,
            role=role,
            max_length=length,
            input_digest=hashlib.sha256("".join(shard.digest for shard in shards).encode()).hexdigest(),
            shard_rows=tuple(shard.rows for shard in shards),
        )
        with _claim(folder, manifest):
            job = Job(spec, info.fingerprint, fields, folder, tuple(shards))
            pending = [n for n in range(len(shards)) if not job.is_finished(n)]
            cut = _run(ray, actors, job, pending, progress)
    return EncodeReport(sum(manifest.shard_rows), shards=len(shards), kept=len(shards) - len(pending), cut=cut)


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """All that a process needs to know to load the encoder and to use it."""

    model: str
    role: Role
    max_length: int | None
    device: str
    options: Mapping[str, Any]

    def load(self) -> M3Encoder:
        """The encoder, with the numbers that every process gets."""
        from m3rag.encoder.encoder import M3Encoder  # noqa: PLC0415 - torch is for the workers

        return M3Encoder(
            self.model, device=self.device, max_length=self.max_length, colbert_dtype="float16", **self.options
        )


@dataclass(frozen=True, slots=True)
class Job:
    """The whole work, as each actor gets it."""

    spec: EncoderSpec
    fingerprint: str
    fields: Fields
    folder: Path
    shards: tuple[Shard, ...]

    def is_finished(self, number: int) -> bool:
        """Whether a shard's file is there already."""
        shard = self.shards[number]
        return is_finished(shard_path(self.folder, number), rows=shard.rows, digest=shard.digest)


class ShardEncoder:
    """The actor: one encoder, a shard at a time."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._reader = ShardReader(job.fields)

    @cached_property
    def _encoder(self) -> M3Encoder:
        encoder = self._job.spec.load()
        found, expected = encoder.info.fingerprint, self._job.fingerprint
        if found != expected:
            raise ModelError(
                f"on this node {self._job.spec.model} is another model ({found}, not {expected}): give all the same"
            )
        return encoder

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Encode and write the shard numbered `row["shard"]`.

        Returns:
            The number of its `texts`, and of those `cut`. What m3rag raises is given back as `error` and
            `message`: of what a worker raises itself, Ray Data keeps the text alone.
        """
        number = int(row["shard"])
        try:
            cut = self._encode(number)
        except M3RagError as error:
            return {"texts": 0, "cut": 0, "error": type(error).__name__, "message": str(error)}
        return {"texts": self._job.shards[number].rows, "cut": cut, "error": "", "message": ""}

    def _encode(self, number: int) -> int:
        shard, path = self._job.shards[number], shard_path(self._job.folder, number)
        encoder = self._encoder
        before = encoder.truncated_texts
        with _attempt(path):
            ids, texts = self._reader.read(shard)
            query = self._job.spec.role == "query"
            output = encoder.encode_queries(texts) if query else encoder.encode_documents(texts)
            write_shard(path, ids, output, digest=shard.digest)
        return encoder.truncated_texts - before


@contextmanager
def _attempt(path: Path) -> Iterator[None]:
    """Count on disk how often a shard was begun but not ended: Ray would restart for ever the workers it kills.

    Raises:
        ModelError: At the fourth time.
    """
    marks = path.with_name(f"{path.name}.attempts{PARTIAL}")
    with marks.open("ab") as file:
        if file.tell() >= ATTEMPTS:
            raise ModelError(
                f"{ATTEMPTS} workers died over {path.name}, probably for lack of memory: "
                f"lower concurrency or max_length, or begin anew with a lower shard_bytes"
            )
        file.write(b".")
    yield
    marks.unlink(missing_ok=True)


def _describe(ray: Any, actors: Actors, spec: EncoderSpec) -> tuple[ModelInfo, str, int]:
    """The model's info, its precision and its limit of tokens, from a worker like those that will encode."""

    def describe() -> tuple[ModelInfo, str, int]:
        encoder = spec.load()
        return encoder.info, str(encoder.dtype).removeprefix("torch."), encoder.max_length

    task = ray.remote(num_cpus=actors.cpus, num_gpus=actors.gpus, max_retries=0)(describe)
    try:
        found: tuple[ModelInfo, str, int] = ray.get(task.remote())
    except ray.exceptions.RayError as error:
        raise plain(error) from error
    return found


def _refuse_foreign(folder: Path) -> None:
    if not folder.is_dir() or (folder / MANIFEST).exists():
        return
    foreign = sorted(path.name for path in folder.iterdir() if path.name != LOCK and path.suffix != PARTIAL)
    if foreign:
        raise InputError(
            f"{folder} holds other files ({', '.join(foreign[:3])}): give a new or empty folder for the output"
        )


@contextmanager
def _claim(folder: Path, manifest: EncodedManifest) -> Iterator[None]:
    """Hold the output folder alone, begun by this job or by an equal one."""
    with writing_alone(folder, another="another folder"):
        if (folder / MANIFEST).exists():
            manifest.require_same(EncodedManifest.read(folder), folder)
        else:
            manifest.write(folder)
        for left in folder.glob(f"*{PARTIAL}"):
            left.unlink(missing_ok=True)
        yield


def _run(ray: Any, actors: Actors, job: Job, pending: Sequence[int], progress: Progress | None) -> int:
    """Encode the pending shards; gives how many texts were cut."""
    texts = sum(shard.rows for shard in job.shards)
    finished, cut = texts - sum(job.shards[number].rows for number in pending), 0
    tell = progress or (lambda *_: None)
    tell(finished, texts)
    if not pending:
        return cut
    # A block a shard, so that each is scheduled for itself; no text passes through Ray's object store.
    shards = ray.data.from_items([{"shard": number} for number in pending], override_num_blocks=len(pending))
    done = shards.map(
        ShardEncoder,
        fn_constructor_args=(job,),
        compute=ray.data.ActorPoolStrategy(size=min(actors.count, len(pending))),
        num_cpus=actors.cpus,
        num_gpus=actors.gpus,
    )
    done.context.enable_progress_bars = False
    try:
        for row in done.iter_rows():
            if row["error"]:
                raise getattr(errors, row["error"])(row["message"])
            finished += int(row["texts"])
            cut += int(row["cut"])
            tell(finished, texts)
    except (ray.exceptions.RayError, ray.data.exceptions.SystemException) as error:
        raise plain(error) from error
    return cut
