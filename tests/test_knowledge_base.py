from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from m3rag.answering import OpenAIChat
from m3rag.errors import ConfigurationError, IndexMismatchError, IndexMissingError, InputError
from m3rag.ingest import Progress
from m3rag.knowledge_base import KnowledgeBase
from m3rag.output import M3Output
from m3rag.reading import read
from m3rag.rebuild import rebuild
from m3rag.settings import LLMSettings, Settings
from m3rag.store import QdrantEdgeStore
from m3rag.testing import HashEncoder


class CountingEncoder(HashEncoder):
    """Counts the passages it encodes, and can be told to fail at one of them."""

    def __init__(self, **dimensions: int) -> None:
        super().__init__(**dimensions)
        self.encoded = 0
        self.fail_after: int | None = None

    def encode_documents(self, texts: Sequence[str]) -> M3Output:
        self.encoded += len(texts)
        if self.fail_after is not None and self.encoded > self.fail_after:
            raise KeyboardInterrupt
        return super().encode_documents(texts)


@pytest.fixture
def encoder() -> CountingEncoder:
    return CountingEncoder()


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    (folder / "sub").mkdir(parents=True)
    (folder / "ducks.md").write_text("# Ducks\n\nDucks swim on ponds.\n\n## Food\n\nDucks eat grass and worms.\n")
    (folder / "sub" / "zebra.txt").write_text("The zebra has stripes. Nobody knows why 斑马 has them.")
    return folder


@pytest.fixture
def kb(tmp_path: Path, encoder: CountingEncoder) -> Iterator[KnowledgeBase]:
    with KnowledgeBase(tmp_path / "index", encoder=encoder, settings=Settings(answer_threshold=-1)) as found:
        yield found


def test_files_in_hits_out(kb: KnowledgeBase, files: Path) -> None:
    report = kb.ingest(files)
    assert [(r.document_id, r.status) for r in report.results] == [("ducks.md", "added"), ("sub/zebra.txt", "added")]
    hits = kb.search("Which animal has stripes?", k=1)
    assert hits[0].chunk.document_id == "sub/zebra.txt"
    assert None not in (hits[0].scores.dense, hits[0].scores.lexical, hits[0].scores.colbert)
    assert [d.id for d in kb.documents()] == ["ducks.md", "sub/zebra.txt"]


def test_citations_are_exact_spans_of_the_document(kb: KnowledgeBase, files: Path) -> None:
    kb.ingest(files)
    answer = kb.ask("What do ducks eat?")
    assert answer.answered
    assert answer.citations
    for citation in answer.citations:
        document = read(files / citation.document_id, root=files)
        assert document.text[citation.start : citation.end] == citation.quote
        assert f"[{citation.number}]" in answer.text
    assert answer.citations[0].quote == "Ducks eat grass and worms."


def test_a_citation_names_the_page_of_its_quote(kb: KnowledgeBase, shared_data: Path) -> None:
    source = shared_data / "files" / "debian-faq" / "debian-faq.en.pdf"
    kb.ingest(source)
    document = read(source)
    citation = kb.ask("Who founded the Debian Project?").citations[0]
    assert document.text[citation.start : citation.end] == citation.quote
    page = next(p for p in document.pages if p.start <= citation.start < p.end)
    assert citation.page == page.number


def test_streaming_ends_with_the_answer(kb: KnowledgeBase, files: Path) -> None:
    kb.ingest(files)
    *texts, answer = kb.stream("What do ducks eat?")
    assert all(isinstance(text, str) for text in texts)
    assert answer == kb.ask("What do ducks eat?")


def test_what_is_unchanged_is_not_encoded_again(kb: KnowledgeBase, encoder: CountingEncoder, files: Path) -> None:
    kb.ingest(files)
    before = encoder.encoded
    report = kb.ingest(files)
    assert [r.status for r in report.results] == ["unchanged", "unchanged"]
    assert encoder.encoded == before
    (files / "ducks.md").write_text("# Ducks\n\nDucks fly.\n")
    report = kb.ingest(files)
    assert [r.status for r in report.results] == ["updated", "unchanged"]
    texts = [chunk.text for chunk in kb.store.chunks_of("ducks.md")]
    assert texts == ["# Ducks\n\nDucks fly."]


def test_a_bad_file_is_reported_and_the_rest_goes_on(kb: KnowledgeBase, files: Path) -> None:
    kb.ingest(files)
    held = kb.store.chunks_of("ducks.md")
    (files / "ducks.md").write_bytes(b"")
    (files / "broken.pdf").write_bytes(b"%PDF-1.4 nothing more")
    (files / "new.txt").write_text("A new file.")
    report = kb.ingest(files)
    assert {r.path.name: r.status for r in report.results} == {
        "broken.pdf": "failed",
        "ducks.md": "failed",
        "new.txt": "added",
        "zebra.txt": "unchanged",
    }
    assert all(r.message for r in report.results if r.status == "failed")
    assert kb.store.chunks_of("ducks.md") == held


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has file names that are not Unicode")
def test_a_name_that_is_not_unicode_is_a_bad_file(kb: KnowledgeBase, files: Path) -> None:
    Path(os.fsdecode(os.fsencode(files) + b"/a\xff.txt")).write_text("Ducks.")
    report = kb.ingest(files)
    assert [r.status for r in report.results] == ["failed", "added", "added"]
    assert "Unicode" in report.results[0].message


def test_an_interrupted_update_leaves_the_older_version(
    kb: KnowledgeBase, encoder: CountingEncoder, files: Path
) -> None:
    kb.ingest(files)
    held = kb.store.chunks_of("ducks.md")
    (files / "ducks.md").write_text("\n\n".join(f"Duck number {i} swims on a pond of its own." for i in range(3000)))
    encoder.fail_after = encoder.encoded + 64
    with pytest.raises(KeyboardInterrupt):
        kb.ingest(files)
    assert kb.store.chunks_of("ducks.md") == held
    encoder.fail_after = None
    assert kb.ingest(files).count("updated") == 1
    assert len(kb.store.chunks_of("ducks.md")) == kb.store.document("ducks.md").chunks > 64  # type: ignore[union-attr]


def test_progress_reaches_the_end_of_each_file(kb: KnowledgeBase, files: Path) -> None:
    steps: list[Progress] = []
    kb.ingest(files, on_progress=steps.append)
    assert [s.file for s in steps if s.chunks and s.done == s.chunks] == [1, 2]
    assert {s.files for s in steps} == {2}


def test_a_second_file_of_the_same_name_replaces_nothing(kb: KnowledgeBase, files: Path, tmp_path: Path) -> None:
    kb.ingest(files)
    other = tmp_path / "other"
    other.mkdir()
    (other / "ducks.md").write_text("Other ducks.")
    report = kb.ingest(other)
    assert report.results[0].status == "failed"
    assert str(files / "ducks.md") in report.results[0].message
    assert "Ducks swim on ponds." in kb.store.chunks_of("ducks.md")[0].text


def test_a_folder_that_moved_is_the_same_documents(kb: KnowledgeBase, files: Path, tmp_path: Path) -> None:
    kb.ingest(files)
    moved = files.rename(tmp_path / "moved")
    assert kb.ingest(moved).count("unchanged") == 2


@pytest.mark.parametrize("index", ["index", "chroma:index"])
def test_an_index_stays_where_it_was_named(
    index: str, tmp_path: Path, files: Path, encoder: CountingEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with KnowledgeBase(index, encoder=encoder, settings=Settings(answer_threshold=-1)) as kb:
        kb.ingest(files / "ducks.md")
        monkeypatch.chdir(tmp_path / "elsewhere")
        kb.ingest(files / "sub")
        assert [hit.chunk.document_id for hit in kb.search("stripes", mode="bm25")] == ["zebra.txt"]
    assert not list((tmp_path / "elsewhere").iterdir())
    with KnowledgeBase(tmp_path / "index" if index == "index" else f"chroma:{tmp_path}/index", encoder=encoder) as kb:
        assert len(kb.documents()) == 2


def test_removing(kb: KnowledgeBase, files: Path) -> None:
    kb.ingest(files)
    with pytest.raises(InputError, match=r"nothing\.md.*m3rag list"):
        kb.remove(["ducks.md", "nothing.md"])
    assert len(kb.documents()) == 2
    assert kb.remove(["ducks.md"]) == 1
    assert [d.id for d in kb.documents()] == ["sub/zebra.txt"]
    assert all(h.chunk.document_id != "ducks.md" for h in kb.search("ducks"))


def test_explanations_add_up_to_the_lexical_score(kb: KnowledgeBase, files: Path) -> None:
    kb.ingest(files)
    hits = kb.search("ducks eat grass")
    for hit, tokens in zip(hits, kb.explain("ducks eat grass", hits, limit=None), strict=True):
        assert sum(contribution for _, contribution in tokens) == pytest.approx(hit.scores.lexical, abs=1e-5)
    assert [token for token, _ in kb.explain("ducks eat grass", hits[:1])[0]] == ["ducks", "grass", "eat"]
    assert kb.explain("ducks", []) == []


def test_reopened_it_is_the_same(kb: KnowledgeBase, files: Path) -> None:
    kb.ingest(files)
    hits = kb.search("ducks")
    kb.close()
    kb.close()
    assert kb.search("ducks") == hits


def test_another_model_is_refused_and_told_how_to_rebuild(kb: KnowledgeBase, files: Path) -> None:
    kb.ingest(files)
    kb.close()
    other = KnowledgeBase(kb.path, encoder=HashEncoder(dense_dim=64))
    with other, pytest.raises(IndexMismatchError, match="m3rag rebuild --index"):
        other.search("ducks")
    with other, pytest.raises(IndexMismatchError, match="nothing was changed"):
        other.ingest(files)
    with kb:
        assert kb.search("ducks")


def test_rebuilt_with_another_model(kb: KnowledgeBase, files: Path) -> None:
    kb.ingest(files)
    kb.close()
    other = HashEncoder(dense_dim=64)
    with QdrantEdgeStore.open(kb.path) as store:
        assert rebuild(store, other) == 2
    assert [p.name for p in kb.path.parent.iterdir() if p.name.startswith("index")] == ["index"]
    with KnowledgeBase(kb.path, encoder=other) as again:
        assert again.search("zebra", k=1)[0].chunk.document_id == "sub/zebra.txt"
        assert again.ingest(files).count("unchanged") == 2


def test_a_rebuild_that_fails_changes_nothing(kb: KnowledgeBase, files: Path, encoder: CountingEncoder) -> None:
    kb.ingest(files)
    kb.close()
    other = CountingEncoder(dense_dim=64)
    other.fail_after = 1
    with QdrantEdgeStore.open(kb.path) as store, pytest.raises(KeyboardInterrupt):
        rebuild(store, other)
    assert [p.name for p in kb.path.parent.iterdir() if p.name.startswith("index")] == ["index"]
    with kb:
        assert kb.search("ducks")


def test_two_of_one_process_share_the_index(kb: KnowledgeBase, files: Path) -> None:
    kb.ingest(files)
    with KnowledgeBase(kb.path, encoder=HashEncoder()) as second:
        assert second.documents() == kb.documents()
        second.delete([second.documents()[0].id])
        assert second.documents() == kb.documents()
    assert kb.search("ducks")


def test_bad_input_is_named(kb: KnowledgeBase, files: Path, tmp_path: Path) -> None:
    with pytest.raises(IndexMissingError, match="m3rag ingest"):
        kb.search("ducks")
    with pytest.raises(InputError, match="nothing to ingest"):
        kb.ingest()
    with pytest.raises(InputError, match="a path is empty"):
        kb.ingest(files, "")
    with pytest.raises(InputError, match="no such file"):
        kb.ingest(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no file to read in .*empty.*\.pdf"):
        kb.ingest(tmp_path / "empty")
    assert not kb.path.exists()
    kb.ingest(files)
    for query in ("", "  \n"):
        with pytest.raises(InputError, match="empty"):
            kb.search(query)
    with pytest.raises(InputError, match="k must be at least 1"):
        kb.search("ducks", k=0)


def test_chunks_must_fit_the_model(tmp_path: Path, files: Path) -> None:
    class Short(HashEncoder):
        max_length = 128

    kb = KnowledgeBase(tmp_path / "index", encoder=Short())
    with kb, pytest.raises(ConfigurationError, match="88 or less"):
        kb.ingest(files)


def test_filters_choose_documents(kb: KnowledgeBase, files: Path) -> None:
    kb.ingest(files)
    hits = kb.search("ducks", filter={"document_id": ["sub/zebra.txt"]})
    assert {h.chunk.document_id for h in hits} == {"sub/zebra.txt"}
    assert kb.search("ducks", filter={"document_id": "nothing"}) == []


def test_no_hit_says_why(kb: KnowledgeBase, files: Path) -> None:
    kb.ingest(files)
    assert kb.why_empty("ducks") is None
    reasons = [
        ({"filter": {"document_id": "nothing"}}, "filter"),
        ({"score_threshold": 99.0}, "score threshold"),
        ({"mode": "lexical"}, "nothing shared"),
    ]
    for options, reason in reasons:
        assert kb.search("penguins", **options) == []  # type: ignore[arg-type]
        why = kb.why_empty("penguins", **options)  # type: ignore[arg-type]
        assert why is not None
        assert why.reason == reason


def test_bm25_beside_the_index(kb: KnowledgeBase, files: Path) -> None:
    kb.ingest(files)
    for mode in ("bm25", "dense+bm25"):
        assert kb.search("stripes", mode=mode)[0].chunk.document_id == "sub/zebra.txt"
    (files / "ducks.md").write_text("Pelicans fish.")
    kb.ingest(files)
    assert [hit.chunk.text for hit in kb.search("pelicans", mode="bm25")] == ["Pelicans fish."]
    kb.close()
    assert [hit.found_by for hit in kb.search("pelicans", mode="bm25")] == [("bm25",)]
    assert kb.search("ducks", mode="bm25") == []


def test_a_close_that_is_broken_off_at_the_language_model_releases_the_index(
    tmp_path: Path, encoder: CountingEncoder, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken_off(_self: OpenAIChat) -> None:
        raise KeyboardInterrupt

    llm = LLMSettings(model="any", base_url="http://localhost:1/v1")
    kb = KnowledgeBase(tmp_path / "index", encoder=encoder, settings=Settings(llm=llm))
    kb.ingest(files)
    assert kb.llm is not None
    with monkeypatch.context() as patch:
        patch.setattr(OpenAIChat, "close", broken_off)
        with pytest.raises(KeyboardInterrupt):
            kb.close()
    with QdrantEdgeStore.open(tmp_path / "index") as store:
        assert len(store.documents()) == 2
    kb.close()


def test_learned_weights_are_the_default_of_a_search(kb: KnowledgeBase, files: Path) -> None:
    kb.ingest(files)
    plain, dense = kb.search("ducks eat grass"), kb.search("ducks eat grass", weights="1/0/0")
    assert plain != dense
    kb.store.update_settings({"weights": "1/0/0"})
    assert kb.search("ducks eat grass") == dense
    assert kb.search("ducks eat grass", weights="miracl") == plain
    kb.close()
    with KnowledgeBase(kb.path, encoder=HashEncoder(), settings=Settings(weights="miracl")) as told:
        assert told.search("ducks eat grass") == plain


def test_options_of_a_search_reach_it(kb: KnowledgeBase, files: Path) -> None:
    kb.ingest(files)
    hits = kb.search("ducks swim")
    assert {hit.chunk.document_id for hit in kb.search("ducks swim", group_by_document=1)} == {
        hit.chunk.document_id for hit in hits
    }
    assert len(kb.search("ducks swim", group_by_document=1)) == 2
    assert kb.search("ducks swim", score_threshold=hits[0].score) == hits[:1]
    assert kb.search("ducks swim", diversity=0.5)[0] == hits[0]


def test_an_option_that_no_search_has_is_named_before_anything_is_opened(tmp_path: Path) -> None:
    told = "unknown option topk: a search takes k, mode, filter, .*rerank_top"
    with KnowledgeBase(tmp_path / "nowhere", encoder=HashEncoder()) as kb:
        for asked in (kb.search, kb.why_empty, kb.passages, kb.ask, kb.stream):
            with pytest.raises(InputError, match=told):
                asked("ducks", topk=3)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"excludes": ["b.md"]}, "unknown option excludes: .* takes include, exclude, .*on_progress"),
        ({"include": 3}, r"include holds 3, must be patterns .*include=\['\*\.md'"),
        ({"exclude": ["a.md", b"b.md"]}, "exclude holds b'b.md'"),
        ({"dry_run": "no"}, "dry_run is of type str, must be True or False"),
        ({"gitignore": 1}, "gitignore is of type int, must be True or False"),
        ({"limits": 5}, "limits is of type int, must be m3rag.reading.Limits"),
        ({"password": b"secret"}, "password is of type bytes, must be a text"),
        ({"on_result": 5}, "on_result is of type int, must be a function"),
    ],
)
def test_options_of_an_ingest_are_checked(kb: KnowledgeBase, files: Path, options: dict[str, Any], told: str) -> None:
    for taken in (kb.ingest, kb.sync, kb.found):
        with pytest.raises(InputError, match=told) as refused:
            taken(files, **options)
        assert "secret" not in str(refused.value)
    assert not kb.exists


def test_an_option_that_sync_alone_has_is_named_by_sync(kb: KnowledgeBase, files: Path) -> None:
    with pytest.raises(InputError, match=r"unknown option remove_mots: sync takes .*remove_most"):
        kb.sync(files, remove_mots=True)  # type: ignore[call-arg]
    with pytest.raises(InputError, match="remove_most is of type str, must be True or False"):
        kb.sync(files, remove_most="no")  # type: ignore[arg-type]


def test_one_pattern_is_not_taken_letter_by_letter(kb: KnowledgeBase, files: Path) -> None:
    assert [path.name for _, path in kb.found(files, include="*.md").files] == ["ducks.md"]
    assert [path.name for _, path in kb.found(files, exclude="*.md").files] == ["zebra.txt"]
    report = kb.ingest(files, include=iter(["*.md"]), exclude=None, dry_run=None, gitignore=None)
    assert [result.document_id for result in report.results] == ["ducks.md"]


@pytest.mark.parametrize("path", [["a.md"], 3, b"a.md", None])
def test_what_is_no_path_is_refused(kb: KnowledgeBase, path: Any) -> None:
    with pytest.raises(InputError, match=rf"of type {type(path).__name__}.*ingest\(\*paths\)"):
        kb.ingest(path)


def test_a_name_is_no_encoder_and_no_language_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"encoder is 'mini'.* model='mini'"):
        KnowledgeBase(tmp_path / "index", encoder="mini")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"llm is 'llama3.2'.* setting llm\.model"):
        KnowledgeBase(tmp_path / "index", llm="llama3.2")  # type: ignore[arg-type]


def test_progress_may_ask_the_index_while_it_is_closed(
    kb: KnowledgeBase, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kb.ingest(files)
    long = tmp_path / "long.txt"
    long.write_text("\n\n".join(f"Pond {n}. " + "Ducks swim. " * 100 for n in range(100)))
    closing, told = threading.Event(), list[int]()
    close = QdrantEdgeStore.close

    def begun(store: QdrantEdgeStore) -> None:
        closing.set()
        close(store)

    def progress(at: Progress) -> None:
        if at.done and not told:
            closer.start()
            assert closing.wait(20)
            told.append(len(kb.documents()))

    monkeypatch.setattr(QdrantEdgeStore, "close", begun)
    closer = threading.Thread(target=kb.close, daemon=True)
    ingesting = threading.Thread(target=lambda: kb.ingest(long, on_progress=progress), daemon=True)
    ingesting.start()
    ingesting.join(60)
    closer.join(20)
    assert not ingesting.is_alive()
    assert not closer.is_alive()
    assert told


def test_the_language_model_is_told_while_the_encoder_is_loaded(kb: KnowledgeBase) -> None:
    loading, over = threading.Event(), threading.Event()

    def load() -> None:
        with kb._lock:
            loading.set()
            assert over.wait(20)

    thread = threading.Thread(target=load)
    thread.start()
    assert loading.wait(20)
    asking = threading.Thread(target=lambda: kb.llm)
    asking.start()
    asking.join(5)
    was_told = not asking.is_alive()
    over.set()
    thread.join()
    assert was_told
