"""An index that equals its folder, on the real store: what is encoded, renamed, removed, refused."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from m3rag.errors import InputError
from m3rag.ingest import FileResult, IngestReport
from m3rag.knowledge_base import HASHES_FILE, KnowledgeBase
from m3rag.sync.hashes import FileHashes


def statuses(report: IngestReport) -> dict[str, str]:
    return {result.document_id or result.path.name: result.status for result in report.results}


def ids(kb: KnowledgeBase) -> list[str]:
    return [record.id for record in kb.documents()]


def test_the_index_equals_the_folder(kb, folder, encoder) -> None:
    assert statuses(kb.sync(folder)) == dict.fromkeys(["a.txt", "b.txt", "long.md", "sub/c.txt"], "added")
    (folder / "a.txt").unlink()
    (folder / "b.txt").write_text("Another text.")
    (folder / "new.txt").write_text("A new text.")
    report = kb.sync(folder)
    assert statuses(report) == {
        "b.txt": "updated",
        "long.md": "unchanged",
        "new.txt": "added",
        "sub/c.txt": "unchanged",
        "a.txt": "removed",
    }
    assert ids(kb) == ["b.txt", "long.md", "new.txt", "sub/c.txt"]
    assert kb.store.count() == sum(record.chunks for record in kb.documents())


def test_the_second_time_nothing_is_read_or_encoded(kb, folder, encoder, monkeypatch) -> None:
    kb.sync(folder)
    encoder.taken()
    for path in folder.rglob("*"):
        os.utime(path, (1_000_000_000, 1_000_000_000))
    kb.sync(folder)  # reads them, since their times are others; their ctime is now
    assert kb.sync(folder).count("unchanged") == 4
    assert encoder.taken() == []


def test_only_the_chunks_that_changed_are_encoded(kb, folder, encoder) -> None:
    kb.sync(folder)
    encoder.taken()
    text = (folder / "long.md").read_text()
    before = kb.store.representations([chunk.id for chunk in kb.store.chunks_of("long.md")])
    (folder / "long.md").write_text(text.replace("Paragraph 4", "Chapter 4"))
    report = kb.sync(folder)
    (result,) = (r for r in report.results if r.status == "updated")
    encoded = encoder.taken()
    assert len(encoded) == result.encoded == 1
    assert "Chapter 4" in encoded[0]
    chunks = kb.store.chunks_of("long.md")
    assert len(chunks) == result.chunks == 10
    expected = encoder.encode_documents([chunk.encoded_text for chunk in chunks])
    held = kb.store.representations([chunk.id for chunk in chunks])
    np.testing.assert_allclose(held.dense, expected.dense, atol=1e-6)
    np.testing.assert_allclose(held.lexical.toarray(), expected.lexical.toarray(), atol=1e-6)
    np.testing.assert_allclose(held.colbert, expected.colbert.astype(np.float32), atol=1e-2)  # kept in 8 bits
    for i in (0, 3, 5, 9):
        np.testing.assert_allclose(held[i].colbert, before[i].colbert, atol=5e-4)
        np.testing.assert_array_equal(held[i].dense, before[i].dense)
    assert "".join(c.text for c in chunks) == (folder / "long.md").read_text().replace("\n\n", "")


def test_what_is_taken_over_many_times_does_not_drift(kb, folder, encoder) -> None:
    kb.sync(folder)
    before = kb.store.representations([chunk.id for chunk in kb.store.chunks_of("long.md")])
    text = (folder / "long.md").read_text()
    for i in range(12):
        (folder / "long.md").write_text(text.replace("Paragraph 4", f"Chapter{i} 4"))
        kb.sync(folder)
    held = kb.store.representations([chunk.id for chunk in kb.store.chunks_of("long.md")])
    for i in (0, 3, 5, 9):
        np.testing.assert_allclose(held[i].colbert, before[i].colbert, atol=1e-3)
        np.testing.assert_array_equal(held[i].dense, before[i].dense)


def test_a_long_document_takes_what_is_stored_part_by_part(kb, folder, encoder) -> None:
    paragraphs = [f"Paragraph {i} tells of geese {i} and lakes {i} and snow {i} at length." for i in range(200)]
    (folder / "long.md").write_text("\n\n".join(paragraphs))
    kb.sync(folder)
    encoder.taken()
    paragraphs[150] = "This one speaks of something else altogether, the zebra, which is striped."
    (folder / "long.md").write_text("\n\n".join(paragraphs))
    kb.sync(folder)
    assert len(encoder.taken()) == 1
    assert [c.text for c in kb.store.chunks_of("long.md")] == paragraphs


def change_a_paragraph(folder: Path) -> None:
    text = (folder / "long.md").read_text()
    (folder / "long.md").write_text(text.replace("Paragraph 4", "Chapter 4"))


def test_a_document_removed_while_the_new_of_it_is_encoded(kb, folder, encoder, monkeypatch) -> None:
    kb.sync(folder)
    encoder.taken()
    change_a_paragraph(folder)
    (folder / "new.txt").write_text("A new text.")
    encode = encoder.encode_documents

    def removing(texts):
        kb.remove(["long.md"])  # as another thread
        return encode(texts)

    monkeypatch.setattr(encoder, "encode_documents", removing)
    report = kb.sync(folder)
    assert (statuses(report)["long.md"], statuses(report)["new.txt"]) == ("updated", "added")
    assert len(encoder.taken()) == sum(result.encoded for result in report.results) == 2
    assert ids(kb) == ["a.txt", "b.txt", "long.md", "new.txt", "sub/c.txt"]


def test_a_document_removed_before_its_chunks_are_taken_over_is_encoded(kb, folder, encoder, monkeypatch) -> None:
    kb.sync(folder)
    encoder.taken()
    change_a_paragraph(folder)
    (folder / "new.txt").write_text("A new text.")
    read = kb.store.representations

    def removing(chunk_ids):
        kb.remove(["long.md"])
        return read(chunk_ids)

    monkeypatch.setattr(kb.store, "representations", removing)
    report = kb.sync(folder)
    assert (statuses(report)["long.md"], statuses(report)["new.txt"]) == ("updated", "added")
    assert len(encoder.taken()) == sum(result.encoded for result in report.results) == 11
    assert "Chapter 4" in kb.store.chunks_of("long.md")[4].text


def test_a_long_document_encodes_the_part_that_is_stored_no_more(kb, folder, encoder, monkeypatch) -> None:
    paragraphs = [f"Paragraph {i} tells of geese {i} and lakes {i} and snow {i} at length." for i in range(200)]
    (folder / "long.md").write_text("\n\n".join(paragraphs))
    kb.sync(folder)
    encoder.taken()
    change_a_paragraph(folder)
    read = kb.store.representations
    reads: list[list[str]] = []

    def removed_since(chunk_ids):
        reads.append(list(chunk_ids))
        if len(reads) == 2:
            raise InputError("no such chunk is stored")
        return read(chunk_ids)

    monkeypatch.setattr(kb.store, "representations", removed_since)
    (result,) = (r for r in kb.sync(folder).results if r.status != "unchanged")
    encoded = encoder.taken()
    assert (result.status, result.chunks) == ("updated", 200)
    assert len(encoded) == result.encoded == 200 - sum(map(len, reads)) + len(reads[1])


def test_a_renamed_file_is_not_encoded(kb, folder, encoder) -> None:
    kb.sync(folder)
    encoder.taken()
    before = [chunk.text for chunk in kb.store.chunks_of("long.md")]
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "long.md").rename(folder / "deep" / "er" / "renamed.md")
    report = kb.sync(folder)
    (result,) = (r for r in report.results if r.status == "renamed")
    assert (result.document_id, result.was, result.encoded) == ("deep/er/renamed.md", "long.md", 0)
    assert report.count("removed") == 0
    assert encoder.taken() == []
    assert ids(kb) == ["a.txt", "b.txt", "deep/er/renamed.md", "sub/c.txt"]
    assert [chunk.text for chunk in kb.store.chunks_of("deep/er/renamed.md")] == before
    assert kb.store.document("deep/er/renamed.md").title == "renamed.md"


def test_a_file_that_became_two_and_two_that_swapped_names(kb, folder, encoder) -> None:
    kb.sync(folder)
    encoder.taken()
    text = (folder / "long.md").read_text()
    (folder / "long.md").rename(folder / "one.md")
    (folder / "two.md").write_text(text)
    a, b = (folder / "a.txt").read_text(), (folder / "b.txt").read_text()
    (folder / "a.txt").write_text(b)
    (folder / "b.txt").write_text(a)
    report = kb.sync(folder)
    assert statuses(report) == {
        "a.txt": "updated",
        "b.txt": "updated",
        "one.md": "renamed",
        "two.md": "added",
        "sub/c.txt": "unchanged",
    }
    assert encoder.taken() == []
    assert kb.store.chunks_of("a.txt")[0].text == b
    assert [c.text for c in kb.store.chunks_of("two.md")] == [c.text for c in kb.store.chunks_of("one.md")]
    assert kb.sync(folder).count("unchanged") == 5


def test_a_folder_that_moved_keeps_its_documents(kb, folder, encoder, tmp_path) -> None:
    kb.sync(folder)
    encoder.taken()
    moved = folder.rename(tmp_path / "moved")
    (moved / "a.txt").unlink()
    report = kb.sync(moved)
    assert report.count("removed") == 1
    assert encoder.taken() == []
    assert ids(kb) == ["b.txt", "long.md", "sub/c.txt"]
    assert {Path(record.source).parents[record.id.count("/")] for record in kb.documents()} == {moved.resolve()}
    assert kb.sync(moved).count("unchanged") == 3


def test_only_documents_of_the_folder_are_removed(kb, folder, tmp_path, monkeypatch) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "o.txt").write_text("Other.")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "alone.txt").write_text("Alone.")
    kb.ingest(other, "alone.txt")
    kb.sync(folder)
    (folder / "a.txt").unlink()
    (other / "o.txt").unlink()
    (tmp_path / "alone.txt").unlink()
    kb.sync(folder)
    assert ids(kb) == ["alone.txt", "b.txt", "long.md", "o.txt", "sub/c.txt"]
    (tmp_path / "more.txt").write_text("More.")
    kb.sync("more.txt")  # a file by itself removes nothing
    assert "alone.txt" in ids(kb)


def test_a_hidden_file_that_was_ingested_by_itself_stays(kb, folder, monkeypatch) -> None:
    monkeypatch.chdir(folder)
    (folder / ".secret.md").write_text("Secret.")
    kb.ingest(".secret.md")
    assert "removed" not in statuses(kb.sync(".")).values()
    assert ".secret.md" in ids(kb)


def test_ingest_removes_nothing(kb, folder) -> None:
    kb.ingest(folder)
    (folder / "a.txt").unlink()
    assert kb.ingest(folder).count("removed") == 0
    assert "a.txt" in ids(kb)


@pytest.mark.parametrize("when", ["before the plan", "before the end"])
def test_a_file_that_is_back_since_it_was_looked_for_is_not_removed(kb, folder, monkeypatch, when) -> None:
    kb.sync(folder)
    for name in ("a.txt", "b.txt"):
        (folder / name).unlink()
    (folder / "long.md").write_text("Another text.")
    find = kb.found

    def back(_: object = None) -> None:
        (folder / "b.txt").write_text("It is back.")

    def found(*paths, **options):
        files = find(*paths, **options)
        if when == "before the plan":
            back()
        return files

    monkeypatch.setattr(kb, "found", found)
    # Of the two files that are there and were not found, one is left out.
    report = kb.sync(folder, exclude=["sub/"], on_result=back if when == "before the end" else None)
    assert statuses(report) == {"long.md": "updated", "a.txt": "removed", "sub/c.txt": "removed"}
    assert ids(kb) == ["b.txt", "long.md"]


def test_an_empty_or_missing_folder_removes_nothing(kb, folder) -> None:
    kb.sync(folder)
    away = folder.rename(folder.with_name("away"))
    with pytest.raises(InputError, match="no such file or folder"):
        kb.sync(folder)
    folder.mkdir()  # a mount point without its disk
    for dry_run in (True, False):
        with pytest.raises(InputError, match=r"4 of the 4 documents .* would be removed; nothing was changed"):
            kb.sync(folder, dry_run=dry_run)
    assert len(ids(kb)) == 4
    folder.rmdir()
    away.rename(folder)
    assert kb.sync(folder).count("unchanged") == 4
    shutil.rmtree(folder)
    folder.mkdir()
    assert kb.sync(folder, remove_most=True).count("removed") == 4
    assert ids(kb) == []


def test_most_of_many_documents_are_not_removed_unasked(kb, tmp_path) -> None:
    root = tmp_path / "many"
    root.mkdir()
    for i in range(30):
        (root / f"{i:02}.txt").write_text(f"Text {i}.")
    kb.sync(root)
    (root / "moved").mkdir()
    for i in range(30):  # that all are moved is no removal
        (root / f"{i:02}.txt").rename(root / "moved" / f"{i:02}.txt")
    assert kb.sync(root).count("renamed") == 30
    for i in range(20):
        (root / "moved" / f"{i:02}.txt").unlink()
    with pytest.raises(InputError, match="20 of the 30 documents"):
        kb.sync(root)
    assert len(ids(kb)) == 30
    assert kb.sync(root, remove_most=True).count("removed") == 20


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may enter any folder")
def test_a_folder_without_permission_keeps_its_documents(kb, folder) -> None:
    kb.sync(folder)
    (folder / "sub").chmod(0)
    try:
        report = kb.sync(folder)
    finally:
        (folder / "sub").chmod(0o755)
    assert statuses(report)["sub"] == "failed"
    assert "sub/c.txt" in ids(kb)


def test_a_folder_that_cannot_be_listed_keeps_its_documents(kb, folder, monkeypatch) -> None:
    kb.sync(folder)
    listed = os.scandir

    def denied(path):
        if Path(path) == folder / "sub":
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr(os, "scandir", denied)
    report = kb.sync(folder)
    assert statuses(report)["sub"] == "failed"
    assert "sub/c.txt" in ids(kb)


def test_a_bad_file_keeps_what_was_held_and_the_rest_is_done(kb, folder, encoder) -> None:
    kb.sync(folder)
    (folder / "long.md").write_bytes(b"")
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4 nothing more")
    (folder / "b.txt").write_text("Another.")
    report = kb.sync(folder)
    assert statuses(report)["b.txt"] == "updated"
    assert sorted(r.path.name for r in report.results if r.status == "failed") == ["broken.pdf", "long.md"]
    assert len(kb.store.chunks_of("long.md")) == 10


def test_a_dry_run_says_it_and_does_nothing(kb, folder, encoder) -> None:
    report = kb.sync(folder, dry_run=True)
    assert report.dry_run
    assert report.count("added") == 4
    assert not kb.place.exists()
    kb.sync(folder)
    encoder.taken()
    (folder / "a.txt").unlink()
    (folder / "b.txt").rename(folder / "d.txt")
    (folder / "sub" / "c.txt").write_text("Another.")
    hashes = (kb.path / HASHES_FILE).read_bytes()
    seen: list[FileResult] = []
    report = kb.sync(folder, dry_run=True, on_result=seen.append)
    expected = {"d.txt": "renamed", "sub/c.txt": "updated", "long.md": "unchanged", "a.txt": "removed"}
    assert statuses(report) == expected
    assert tuple(seen) == report.results
    assert ids(kb) == ["a.txt", "b.txt", "long.md", "sub/c.txt"]
    assert (kb.path / HASHES_FILE).read_bytes() == hashes
    assert encoder.taken() == []
    assert statuses(kb.sync(folder)) == expected


def test_rules_choose_the_files_and_what_they_leave_out_is_removed(kb, folder) -> None:
    kb.sync(folder)
    report = kb.sync(folder, include=["*.txt"], exclude=["sub/"])
    assert statuses(report) == {
        "a.txt": "unchanged",
        "b.txt": "unchanged",
        "long.md": "removed",
        "sub/c.txt": "removed",
    }
    (folder / ".gitignore").write_text("b.*\n")
    assert statuses(kb.sync(folder, gitignore=True))["b.txt"] == "removed"


def test_the_index_within_the_folder_is_not_read(tmp_path, encoder, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("Ducks.")
    with KnowledgeBase("index", encoder=encoder) as kb:
        assert kb.sync(".").count("added") == 1
        assert list(statuses(kb.sync("."))) == ["a.txt"]


def test_small_files_share_a_pass_of_the_encoder(kb, tmp_path, encoder) -> None:
    root = tmp_path / "many"
    root.mkdir()
    for i in range(100):
        (root / f"{i:02}.txt").write_text(f"Text {i}.")
    (root / "same.txt").write_text("Text 7.")
    kb.sync(root)
    assert [len(call) for call in encoder.calls] == [100]


@pytest.mark.skipif(sys.platform != "linux", reason="only here two forms of a name are two files")
def test_one_name_in_two_forms_of_unicode(kb, tmp_path) -> None:
    root = tmp_path / "names"
    root.mkdir()
    (root / unicodedata.normalize("NFD", "Käse.txt")).write_text("One.")
    kb.sync(root)
    assert ids(kb) == [unicodedata.normalize("NFC", "Käse.txt")]
    (root / unicodedata.normalize("NFC", "Käse.txt")).write_text("Two.")
    report = kb.sync(root)
    assert report.count("failed") == 1
    assert "rename one of them" in next(r.message for r in report.results if r.status == "failed")
    assert len(ids(kb)) == 1


def test_upper_and_lower_case_are_two_names_and_a_change_of_it_a_rename(kb, folder, encoder) -> None:
    kb.sync(folder)
    encoder.taken()
    (folder / "a.txt").rename(folder / "A.txt")
    report = kb.sync(folder)
    assert statuses(report)["A.txt"] == "renamed"
    assert encoder.taken() == []


SECOND = """
import sys
from m3rag.errors import IndexLockedError
from m3rag.knowledge_base import KnowledgeBase
try:
    KnowledgeBase(sys.argv[1]).sync(sys.argv[2])
except IndexLockedError as error:
    print(error)
"""


def test_a_second_process_is_refused_and_one_process_shares_the_index(kb, folder, encoder) -> None:
    kb.sync(folder)
    command = [sys.executable, "-c", SECOND, str(kb.path), str(folder)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "in use by another process" in told
    encoder.taken()
    with KnowledgeBase(kb.path, settings=kb.settings, encoder=encoder) as second:
        assert second.sync(folder).count("unchanged") == 4
    assert encoder.taken() == []
    assert len(ids(kb)) == 4


def test_other_chunks_are_made_when_the_settings_are_others(kb, folder, encoder) -> None:
    kb.sync(folder)
    kb.settings = kb.settings.model_copy(update={"chunk_tokens": 200})
    assert kb.sync(folder).count("updated") == 4
    assert len(kb.store.chunks_of("long.md")) == 1


def test_a_failed_rename_keeps_the_older_document(kb, folder, encoder, monkeypatch) -> None:
    kb.sync(folder)
    (folder / "long.md").rename(folder / "new.md")
    put = kb.store.put_document

    def refusing(record, parts):
        if record.id == "new.md":
            raise InputError("no room")
        put(record, parts)

    monkeypatch.setattr(kb.store, "put_document", refusing)
    assert statuses(kb.sync(folder))["new.md"] == "failed"
    assert "long.md" in ids(kb)
    monkeypatch.undo()
    assert statuses(kb.sync(folder))["new.md"] == "renamed"
    assert "long.md" not in ids(kb)


def test_a_dry_run_knows_that_an_empty_file_is_not_read(kb, folder) -> None:
    (folder / "empty.md").touch()
    failed = [result for result in kb.sync(folder, dry_run=True).results if result.status == "failed"]
    assert [(result.path.name, result.message) for result in failed] == [("empty.md", "is empty (0 bytes)")]


def test_a_file_that_vanishes_before_it_is_read_is_told_as_such(kb, folder, monkeypatch) -> None:
    real = FileHashes.of

    def of(self, path: Path) -> str:
        if path.name == "long.md":
            path.unlink()
        return real(self, path)

    monkeypatch.setattr(FileHashes, "of", of)
    failed = [result for result in kb.ingest(folder).results if result.status == "failed"]
    told = [(result.path.name, result.message) for result in failed]
    assert told == [("long.md", "was removed or renamed before it was read; ingest again")]


@pytest.mark.parametrize("sync", [False, True])
def test_a_source_that_may_not_be_looked_at_is_not_gone(kb, folder, tmp_path, shut, sync) -> None:
    kb.sync(folder)
    other = tmp_path / "other"
    other.mkdir()
    (other / "a.txt").write_text("Another text.")
    (other / "new.txt").write_text("A new text.")
    shut(folder)
    report = kb.sync(other) if sync else kb.ingest(other)
    assert {r.path.name: r.status for r in report.results} == {"a.txt": "failed", "new.txt": "added"}
    assert "already holds a.txt from" in report.results[0].message
    assert ids(kb) == ["a.txt", "b.txt", "long.md", "new.txt", "sub/c.txt"]


def test_what_cannot_be_named_in_this_locale_is_not_gone(kb, folder, monkeypatch) -> None:
    (folder / "утка.txt").write_text("A text.")
    kb.sync(folder)
    (folder / "утка.txt").unlink()  # in an ASCII locale it is there, by another name
    encoded = os.fsencode

    def narrow(name):
        os.fspath(name).encode("ascii")
        return encoded(name)

    monkeypatch.setattr(os, "fsencode", narrow)
    assert kb.sync(folder).count("removed") == 0
    assert "утка.txt" in ids(kb)
