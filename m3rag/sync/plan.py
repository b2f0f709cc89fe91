"""What is to be done with each file, decided without reading what has not changed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from m3rag.errors import InputError, ReadError
from m3rag.reading import Found
from m3rag.reading.discover_paths import document_id, is_gone, unreadable
from m3rag.store.protocol import DocumentRecord, Store
from m3rag.sync.hashes import FileHashes

MANY = 10
"""Documents that may be removed without asking, whatever their share."""


@dataclass(frozen=True, slots=True)
class Planned:
    """What is to be done with one file.

    Attributes:
        number: Its place among the files found, from 1.
        root: What its id is relative to.
        path: The file.
        document_id: Its identity.
        source: Where it really is, absolute.
        status: What will have become of it.
        known: What the index holds of it.
        donor: A document of the index with the same content, or else the older version of it: chunks with
            texts of its need not be encoded.
    """

    number: int
    root: Path
    path: Path
    document_id: str
    source: str
    status: Literal["added", "updated", "renamed", "unchanged"]
    known: DocumentRecord | None = None
    donor: DocumentRecord | None = None


@dataclass(slots=True)
class Plan:
    """Decides file by file; for a sync also which documents are gone.

    Args:
        found: The files.
        records: For a sync, all documents of the index by id.
        record: One document of the index.
        hashes: The content hashes of files.
        version_of: A content hash to the version of the document.
        max_bytes: What a file may have.
    """

    found: Found
    records: Mapping[str, DocumentRecord] | None
    record: Callable[[str], DocumentRecord | None]
    hashes: FileHashes
    version_of: Callable[[str], str]
    max_bytes: int
    _ids: list[str | None] = field(default_factory=list)
    _names: dict[str, Path] = field(default_factory=dict)
    _real: dict[Path, str] = field(default_factory=dict)
    _gone: dict[str, DocumentRecord] = field(default_factory=dict)
    _by_version: dict[str, list[DocumentRecord]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        found: Found,
        store: Store | None,
        *,
        hashes: FileHashes,
        version_of: Callable[[str], str],
        max_bytes: int,
        sync: bool,
    ) -> Plan:
        """A plan for the documents of a store; None is an index that is not there yet."""
        records = {record.id: record for record in store.documents()} if store and sync else {}
        one = store.document if store and not sync else records.get
        plan = cls(found, records if sync else None, one, hashes, version_of, max_bytes)
        plan._ids = [_id_or_none(path, root) for root, path in found.files]
        for record in records.values():
            plan._by_version.setdefault(record.version, []).append(record)
        plan._gone = plan._find_gone() if sync else {}
        return plan

    @property
    def gone(self) -> list[DocumentRecord]:
        """The documents of the folders whose files are not there any more, but for those renamed so far."""
        return list(self._gone.values())

    def spare(self, found: Found) -> None:
        """Hear of another look at the folders: what is there by now, or cannot be looked for, is not gone."""
        here = {_id_or_none(path, root) for root, path in found.files}
        unread = _resolved(found.unreadable)
        self._gone = {
            id_: record for id_, record in self._gone.items() if id_ not in here and not _is_below(record, unread)
        }

    def refuse_to_empty(self) -> None:
        """Refuse to remove most of what the index holds of a folder: rather it is not mounted, or the wrong one.

        Raises:
            InputError: A folder has no file to read but documents in the index; or more than half of its
                documents would be removed, and more than 10, beyond what new files may be renamed from.
        """
        for folder in self.found.folders:
            root = folder.resolve()
            files = [id_ for id_, (base, _) in zip(self._ids, self.found.files, strict=True) if base == folder]
            held = [record for record in (self.records or {}).values() if root_of(record) == root]
            gone = sum(1 for record in held if record.id in self._gone)
            new = sum(1 for id_ in files if id_ not in (self.records or {}))
            removed = gone if not files else gone - new
            if removed > 0 and (not files or (removed > MANY and 2 * removed > len(held))):
                raise InputError(
                    f"{folder}: {removed} of the {len(held)} documents that the index holds of it would be removed; "
                    "nothing was changed. See them with --dry-run (dry_run=True); if that is meant, say --yes "
                    "(remove_most=True)"
                )

    def decide(self, number: int) -> Planned:
        """What to do with a file, by its place among those found, from 1.

        Raises:
            InputError: It has no usable name, or the index holds another file of that name.
            ReadError: It cannot be read, or is too large.
        """
        root, path = self.found.files[number - 1]
        identity = self._ids[number - 1] or document_id(path, root=root)  # which raises
        other = self._names.setdefault(identity, path)
        if other != path:
            raise InputError(
                f"{path}: has the name of {other} but for how it is written in Unicode; rename one of them"
            )
        known = self.record(identity)
        source = self._source(root, path)
        if known is not None and known.source not in ("", source) and not is_gone(known.source):
            raise InputError(
                f"{path}: the index already holds {identity} from {known.source}: ingest the folder that holds both"
            )
        version = self.version_of(self._hash(path))
        moved = self.records is not None and known is not None and known.source != source
        if known is not None and known.version == version:
            return Planned(number, root, path, identity, source, "updated" if moved else "unchanged", known, known)
        donors = self._by_version.get(version, [])
        renamed = next((d for d in sorted(donors, key=lambda d: _nearness(d, path)) if d.id in self._gone), None)
        if renamed is not None and known is None:
            del self._gone[renamed.id]
            return Planned(number, root, path, identity, source, "renamed", None, renamed)
        donor = donors[0] if donors else known
        return Planned(number, root, path, identity, source, "updated" if known else "added", known, donor)

    def written(self, record: DocumentRecord) -> None:
        """Hear of a document that the index holds now: what comes later may have its content too."""
        if self.records is not None:
            self._by_version.setdefault(record.version, []).insert(0, record)

    def _source(self, root: Path, path: Path) -> str:
        """`path.resolve()`, without asking the system for each: below a folder nothing is a link."""
        if root not in self.found.folders:
            return str(path.resolve())
        if root not in self._real:
            self._real[root] = os.path.realpath(root)
        return os.path.join(self._real[root], path.relative_to(root))

    def _hash(self, path: Path) -> str:
        try:
            size = path.stat().st_size
            if size > self.max_bytes:
                raise ReadError(
                    f"{path}: has {size:,} bytes, the limit is {self.max_bytes:,}; split it or raise max_bytes"
                )
            return self.hashes.of(path)
        except OSError as error:
            raise unreadable(path, error) from error

    def _find_gone(self) -> dict[str, DocumentRecord]:
        records = self.records or {}
        roots = {folder.resolve() for folder in self.found.folders}
        here = set(self._ids)
        # A folder that was moved takes with it what has been deleted from it since.
        roots |= {
            root
            for record in records.values()
            if record.id in here and record.source and (root := root_of(record)) and is_gone(root)
        }
        unread = _resolved(self.found.unreadable)
        return {
            record.id: record
            for record in records.values()
            if record.id not in here
            and root_of(record) in roots
            and not _is_hidden(record)
            and _can_be_named(record)
            and not _is_below(record, unread)
        }


def root_of(record: DocumentRecord) -> Path | None:
    """The folder that a document was ingested with, resolved; None if it was of no file."""
    depth = record.id.count("/")
    parents = Path(record.source).parents if record.source else ()
    return parents[depth] if len(parents) > depth else None


def _is_hidden(record: DocumentRecord) -> bool:
    """Whether it was ingested as a single file for sure: folders are read without what is hidden."""
    return any(name.startswith((".", "~$")) for name in record.id.split("/"))


def _can_be_named(record: DocumentRecord) -> bool:
    """Whether its file could be found at all: in an ASCII locale others' names are not what they were."""
    try:
        os.fsencode(record.source)
    except UnicodeEncodeError:
        return False
    return True


def _resolved(folders: Iterable[Path]) -> list[Path]:
    return [folder.resolve() for folder in folders]


def _is_below(record: DocumentRecord, folders: Iterable[Path]) -> bool:
    return any(Path(record.source).is_relative_to(folder) for folder in folders)


def _id_or_none(path: Path, root: Path) -> str | None:
    try:
        return document_id(path, root=root)
    except InputError:
        return None


def _nearness(donor: DocumentRecord, path: Path) -> tuple[bool, str]:
    return donor.id.rsplit("/", 1)[-1] != path.name, donor.id
