"""Mining over files: what was done before a kill is kept, and the output appears whole."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

from m3rag._alone import LOCK, writing_alone
from m3rag.errors import ConfigurationError, InputError
from m3rag.retrieval import HybridRetriever
from m3rag.store.protocol import Store
from m3rag.training.data import (
    Example,
    known_positives,
    numbered_lines,
    plain_name,
    read_examples,
    training_files,
)
from m3rag.training.mining import AT_ONCE, MiningSettings, Teacher, mine
from m3rag.training.saving import require_free, writing
from m3rag.types import Chunk

IDENTITY = "run.json"

SINGLE = "mined.jsonl"
"""The output of a single file, whose own name may be any, that of `IDENTITY` too."""

SCANNED = 1024
"""Passages read together when they are hashed."""


@dataclass(frozen=True, slots=True)
class MiningReport:
    """What a run found: examples, negatives, and examples for which there was none."""

    examples: int
    negatives: int
    without: int


def mine_files(
    data: Path,
    out: Path,
    retriever: HybridRetriever,
    *,
    settings: MiningSettings | None = None,
    teacher: Teacher | None = None,
    teacher_name: str = "",
    on_progress: Callable[[int, int], None] | None = None,
) -> MiningReport:
    """Mine hard negatives for a `.jsonl` file, or for each one of a folder; what is gzipped becomes plain.

    What is under way lies in `OUT.mining`: a run that was killed goes on there when started again.

    Args:
        data: The file or folder.
        out: A new file, or a new folder with files of the same names.
        retriever: Searches the passages.
        settings: Which become negatives.
        teacher: As in `mine`.
        teacher_name: Tells one teacher from another when a run goes on.
        on_progress: Called with the number of examples done and of all.

    Raises:
        InputError: If the data holds no examples or a bad line, `out` is there already or cannot be written, or
            another process is writing it.
        ConfigurationError: If another run's work is in the way.
    """
    wanted = settings or MiningSettings()
    require_free(out, as_file=not data.is_dir())
    files = training_files(data)
    totals = {file: sum(1 for _ in read_examples(file)) for file in files}  # bad lines are told before any work
    work = out.with_name(f"{out.name}.mining")
    done, report = 0, MiningReport(0, 0, 0)
    with writing_alone(work, another="another --out"):
        _take_up(work, _identity(files, retriever, wanted, teacher_name))
        for file in files:
            target = work / (plain_name(file) if data.is_dir() else SINGLE)
            if not target.is_file():
                for count in _mine_file(file, target, retriever, wanted, teacher):
                    if on_progress is not None:
                        on_progress(done + count, sum(totals.values()))
            done += totals[file]
            report = _with(report, target)
    (work / LOCK).unlink(missing_ok=True)
    if data.is_dir():
        if out.is_dir():
            out.rmdir()
        work.rename(out)
        (out / IDENTITY).unlink()  # not before: without it another run would take these files for its own
    else:
        (work / SINGLE).replace(out)
        shutil.rmtree(work)
    return report


def _identity(files: list[Path], retriever: HybridRetriever, settings: MiningSettings, teacher: str) -> dict[str, Any]:
    digest = sha256()
    for file in files:
        digest.update(f"{file.name}\n".encode("utf-8", "backslashreplace") + file.read_bytes())
    return {
        "data": digest.hexdigest(),
        "model": retriever.encoder.info.fingerprint,
        "passages": _passages_digest(retriever.store),
        "weights": str(retriever.weights),
        "teacher": teacher,
        **asdict(settings),
    }


def _passages_digest(store: Store) -> str:
    """A hash of all passages of a store, in whatever order it gives them."""
    total, cursor = 0, None
    while True:
        chunks, cursor = store.scan(limit=SCANNED, cursor=cursor)
        for chunk in chunks:
            told = json.dumps([chunk.id, chunk.headings, chunk.text])
            total += int.from_bytes(sha256(told.encode()).digest(), "big")
        if cursor is None:
            return f"{total % (1 << 256):064x}"


def _take_up(work: Path, identity: dict[str, Any]) -> None:
    path = work / IDENTITY
    if not path.is_file():
        part = work / f"{IDENTITY}.part"
        with writing(part):
            part.write_text(json.dumps(identity), encoding="utf-8")
            part.replace(path)
        return
    before = json.loads(path.read_text(encoding="utf-8"))
    if before != identity:
        changed = sorted(key for key in {*before, *identity} if before.get(key) != identity.get(key))
        raise ConfigurationError(
            f"{work} holds the work of another run (other {', '.join(changed)}): finish that one, give another "
            f"--out, or remove {work} to start anew"
        )


def _mine_file(
    file: Path, target: Path, retriever: HybridRetriever, settings: MiningSettings, teacher: Teacher | None
) -> Iterator[int]:
    """Mine one file behind what is there of it; yields the number of its examples done."""
    part = target.with_name(f"{target.name}.part")
    with writing(part):
        part.touch()
    count = _complete_lines(part)
    known = known_positives(read_examples(file))
    rest = islice(read_examples(file), count, None)
    while block := list(islice(rest, AT_ONCE)):
        mined = mine(block, retriever, settings=settings, teacher=teacher, known=known)
        found = b"".join(map(to_line, mined))
        with writing(part), part.open("ab") as lines:
            lines.write(found)
        count += len(block)
        yield count
    part.replace(target)


def _complete_lines(part: Path) -> int:
    """How many whole lines a part has; what a kill left of another is cut off."""
    with part.open("r+b") as file:
        content = file.read()
        whole = content[: content.rfind(b"\n") + 1]
        file.truncate(len(whole))
    return whole.count(b"\n")


def to_line(example: Example) -> bytes:
    """An example as a line of FlagEmbedding's jsonl."""
    row: dict[str, Any] = {"query": example.query, "pos": example.positives, "neg": example.negatives}
    if example.has_teacher:
        row |= {"pos_scores": example.positive_scores, "neg_scores": example.negative_scores}
    if example.answers:
        row["answers"] = example.answers
    return json.dumps(row | dict(example.more), ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


def _with(report: MiningReport, file: Path) -> MiningReport:
    counts = [len(example.negatives) for example in read_examples(file)]
    return MiningReport(report.examples + len(counts), report.negatives + sum(counts), report.without + counts.count(0))


def read_corpus(path: Path) -> Iterator[Chunk]:
    """The passages of a file in the form of BEIR's `corpus.jsonl`, or of a folder that holds one; it may be gzipped.

    Each line has `text`, and may have `_id` (or `id`), a string, and a `title`, which becomes the first line.

    Raises:
        InputError: If there is none, a line is not a passage, or an id is there twice; the line is named by
            file and number.
    """
    file = corpus_file(path)
    seen: set[str] = set()
    for number, line in numbered_lines(file):
        try:
            name, text = _passage(json.loads(line.decode("utf-8-sig")), number)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(f'{file}:{number}: not {{"_id", "title", "text"}}: {error}') from error
        if name in seen:
            raise InputError(f"{file}:{number}: the _id {name!r:.80} is there twice; ids must be unique")
        seen.add(name)
        if text.strip():
            yield Chunk(id=name, document_id=name, text=text, start=0, end=len(text))


def corpus_file(path: Path) -> Path:
    """The file itself, or the `corpus.jsonl` of a folder.

    Raises:
        InputError: If it is not there.
    """
    file = path / "corpus.jsonl" if path.is_dir() else path
    found = next((one for one in (file, file.with_name(f"{file.name}.gz")) if one.is_file()), None)
    if found is None:
        raise InputError(f"{file} is not there: give a file of {{'_id', 'title', 'text'}} a line")
    return found


def _passage(row: Any, number: int) -> tuple[str, str]:
    """Id and text of a row, the title before it."""
    title, text = row.get("title") or "", row.get("text")
    if not isinstance(title, str) or not isinstance(text, str):
        raise TypeError("title and text must be strings")
    name = row.get("_id", row.get("id", str(number)))
    if not isinstance(name, str) or not name:
        raise TypeError(f"_id must be a string that is not empty, got {name!r:.60}")
    return name, f"{title}\n{text}" if title else text


def own_passages(data: Path) -> Iterator[Chunk]:
    """All passages of the training data itself, each once."""
    seen: set[bytes] = set()
    for file in training_files(data):
        for example in read_examples(file):
            for text in (*example.positives, *example.negatives):
                digest = sha256(text.encode("utf-8", "backslashreplace")).digest()
                if digest not in seen:
                    seen.add(digest)
                    yield Chunk(id=digest.hex()[:32], document_id=digest.hex()[:32], text=text, start=0, end=len(text))
