"""The manifest of a folder of encoded texts: whose numbers they are, and what makes them all."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from m3rag._version import __version__
from m3rag.errors import ConfigurationError, InputError
from m3rag.types import ModelInfo

FORMAT = 1
MANIFEST = "manifest.json"
PARTIAL = ".partial"


@dataclass(frozen=True, slots=True)
class EncodedManifest:
    """What a folder was made from; equal manifests mean equal contents.

    Attributes:
        model: By its fingerprint it stands for every option that changes the numbers, but:
        dtype: The precision that the model computed in.
        role: `query` or `document`.
        max_length: Tokens, specials included, beyond which texts were cut.
        input_digest: SHA-256 (hex) of all ids and texts, in order.
        shard_rows: Rows of each shard, in order.
    """

    model: ModelInfo
    dtype: str
    role: str
    max_length: int
    input_digest: str
    shard_rows: tuple[int, ...]

    def write(self, folder: Path) -> None:
        """Write `manifest.json` wholly or not at all."""
        content = {"format": FORMAT, "m3rag_version": __version__, "rows": sum(self.shard_rows), **asdict(self)}
        with replacing(folder / MANIFEST) as partial:
            partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> EncodedManifest:
        """Read a folder's manifest.

        Raises:
            InputError: If there is none, or it is damaged or of a newer m3rag.
        """
        path = folder / MANIFEST
        if not path.is_file():
            raise InputError(f"{folder} holds no encoded texts (it has no {MANIFEST}): make them with m3rag encode")
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["format"] == FORMAT:
                return cls(
                    model=ModelInfo(**content["model"]),
                    dtype=content["dtype"],
                    role=content["role"],
                    max_length=int(content["max_length"]),
                    input_digest=content["input_digest"],
                    shard_rows=tuple(int(rows) for rows in content["shard_rows"]),
                )
            made_by = f"format {content['format']}, by m3rag {content['m3rag_version']}"
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} is damaged ({error!r}): delete {folder} and encode again") from error
        raise InputError(f"{path} is of {made_by}; this is m3rag {__version__}, of format {FORMAT}: use that version")

    def require_same(self, begun: EncodedManifest, folder: Path) -> None:
        """Refuse to go on with what another job began.

        Args:
            begun: The manifest found in the folder.
            folder: For the message.

        Raises:
            ConfigurationError: If anything differs; it is named.
        """
        facts = {
            "model": (begun.model.fingerprint, self.model.fingerprint),
            "dtype": (begun.dtype, self.dtype),
            "role": (begun.role, self.role),
            "max_length": (begun.max_length, self.max_length),
            "input": (begun.input_digest[:16], self.input_digest[:16]),
            "number of shards": (len(begun.shard_rows), len(self.shard_rows)),
        }
        differing = [f"{name} {before}, now {now}" for name, (before, now) in facts.items() if before != now]
        if differing or begun.shard_rows != self.shard_rows:
            raise ConfigurationError(
                f"{folder} was begun with other settings ({'; '.join(differing) or 'shards of another size'}): "
                f"repeat those to finish it, give another folder, or delete it"
            )


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file to write instead of `path`, which then appears wholly or not at all, also after a loss of power."""
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}{PARTIAL}")
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
