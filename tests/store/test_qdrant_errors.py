"""What QdrantStore says when there is no server, no collection, no access, or something else in its place."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

from m3rag.errors import IndexMismatchError, IndexMissingError, InputError, StoreError
from m3rag.store import FORMAT
from m3rag.store.qdrant import QdrantStore
from m3rag.store.qdrant_collection import OLDEST_FORMAT
from m3rag.store.qdrant_points import point_id
from m3rag.testing.data import MODEL, random_document, random_query

KEY = "s3cret-key"
Answer = Callable[[str], tuple[int, Any]]


@pytest.fixture
def client() -> Iterator[QdrantClient]:
    client = QdrantClient(":memory:")
    yield client
    client.close()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


@contextmanager
def server(answer: Answer) -> Iterator[str]:
    """An HTTP server whose answer to a path is a status and JSON, or text."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, body = answer(self.path)
            sent = (body if isinstance(body, str) else json.dumps(body)).encode()
            self.send_response(status)
            if status == 429:
                self.send_header("Retry-After", "7")
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        do_POST = do_PUT = do_GET

        def log_message(self, *args: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_port}"
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


def qdrant_until(path: str, status: int, body: Any = "", *, version: str = "1.16.0") -> Answer:
    """A server that answers as Qdrant does, except on paths that end so."""

    def answer(asked: str) -> tuple[int, Any]:
        if asked.partition("?")[0].endswith(path):
            return status, body
        if asked == "/":
            return 200, {"title": "qdrant - vector search engine", "version": version}
        if asked.endswith("/exists"):
            return 200, {"result": {"exists": True}, "status": "ok", "time": 0.0}
        raise AssertionError(asked)

    return answer


# The server


def test_no_server_is_named_with_its_url() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    for ask in (QdrantStore.open, QdrantStore.exists):
        with pytest.raises(StoreError, match=rf"no Qdrant server can be reached at http://127.0.0.1:{port} .*start it"):
            ask(f"http://127.0.0.1:{port}")
    with pytest.raises(StoreError, match=f"reached at http://127.0.0.1:{port}"):
        QdrantStore.open_or_create(f"http://127.0.0.1:{port}", MODEL)


@pytest.mark.parametrize(
    ("path", "status", "body", "message"),
    [
        ("/", 401, "Must provide an API key", r"refused the api key \(401\)"),
        ("/exists", 403, {"status": {"error": "Forbidden"}}, r"refused the api key \(403\)"),
        ("/points", 404, {"status": {"error": "Not found"}}, r"there is no collection 'm3rag'"),
        ("/exists", 500, {"status": {"error": "Service internal error: disk"}}, r"refused .*\(500\).*disk"),
        ("/points", 413, {"status": {"error": "Payload too large"}}, r"max_request_size_mb"),
        ("/points", 429, {"status": {"error": "Rate limit"}}, r"try again.* in 7 s.*Rate limit"),
        ("/points", 504, "", r"did not answer in time"),
        ("/", 200, "<html>welcome</html>", r"does not speak Qdrant's protocol.*url and port"),
        ("/", 200, {"title": "x", "version": "latest"}, r"is no Qdrant server"),
        ("/", 200, {"title": "qdrant", "version": "1.9.2"}, r"version 1\.9\.2: upgrade it to 1\.12"),
        ("/exists", 301, "", r"refused .*\(301\)"),
    ],
)
def test_what_a_server_refuses_is_told_with_the_remedy(path: str, status: int, body: Any, message: str) -> None:
    with server(qdrant_until(path, status, body)) as url:
        for ask in (QdrantStore.open, QdrantStore.open_or_create):
            with pytest.raises(StoreError, match=message) as caught:
                ask(url, MODEL)
            assert caught.value.__cause__ is not None or path == "/"
            assert isinstance(caught.value, IndexMissingError) == (status == 404)


def test_a_server_that_does_not_answer_is_given_up() -> None:
    done = threading.Event()

    def hang(path: str) -> tuple[int, Any]:
        done.wait(30)
        return 200, ""

    with server(hang) as url:
        try:
            started = time.monotonic()
            with pytest.raises(StoreError, match=f"{url} did not answer in time.*longer timeout"):
                QdrantStore.open(url, timeout=1)
            assert time.monotonic() - started < 25
        finally:
            done.set()


def test_secrets_are_never_shown(rng: np.random.Generator) -> None:
    with server(qdrant_until("/", 401, "no")) as url:
        secret = url.replace("http://", "http://me:hunter2@") + "/?api_key=abc"
        with (
            pytest.warns(UserWarning, match="insecure"),
            pytest.raises(StoreError, match="refused the api key") as told,
        ):
            QdrantStore.open(secret, api_key=KEY)
    shown = f"{told.value} {told.value!r} {told.value.__cause__} {told.value.__cause__!r}"
    assert url in shown
    for word in (KEY, "hunter2", "abc"):
        assert word not in shown


def test_repr_names_the_place_without_secrets(client: QdrantClient) -> None:
    with QdrantStore.create("https://me:hunter2@example.com:6333/?key=abc", MODEL, client=client) as store:
        assert repr(store) == "QdrantStore('https://example.com:6333/', collection='m3rag')"


@pytest.mark.parametrize("location", ["localhost:6333", "example.com", "docs.index", "ftp://x", ""])
def test_a_location_must_say_what_it_is(location: str) -> None:
    with pytest.raises(InputError, match=r"give a url with its scheme.*pathlib\.Path"):
        QdrantStore.open(location)


def test_options_that_make_no_sense_are_refused(client: QdrantClient) -> None:
    with pytest.raises(InputError, match="give a location"):
        QdrantStore.open(None)
    with pytest.raises(InputError, match="timeout must be above 0"):
        QdrantStore.open("http://localhost:6333", timeout=0)
    with pytest.raises(InputError, match="replication_factor must be at least 1, got 0"):
        QdrantStore.create(None, MODEL, client=client, replication_factor=0)
    assert not QdrantStore.exists(None, client=client)


# The collection


def test_a_missing_collection_is_named(client: QdrantClient) -> None:
    with pytest.raises(IndexMissingError, match=r"no collection 'docs' at the client given.*QdrantStore\.create"):
        QdrantStore.open(None, collection="docs", client=client)
    assert not QdrantStore.exists(None, collection="docs", client=client)


def test_a_collection_that_goes_away_is_named(client: QdrantClient, rng: np.random.Generator) -> None:
    store = QdrantStore.create(None, MODEL, client=client)
    client.delete_collection("m3rag")
    with pytest.raises(IndexMissingError, match="no collection 'm3rag'"):
        store.candidates(random_query(rng), "dense", k=1)


def test_a_foreign_collection_is_refused_and_left_alone(client: QdrantClient) -> None:
    dense = models.VectorParams(size=24, distance=models.Distance.DOT)
    client.create_collection("m3rag", vectors_config=dense)
    client.upsert("m3rag", [models.PointStruct(id=1, vector=[0.0] * 24, payload={"thesis": "years of work"})])
    assert not QdrantStore.exists(None, client=client)
    with pytest.raises(StoreError, match="'m3rag' at the client given was not made by m3rag"):
        QdrantStore.open(None, MODEL, client=client)
    for make in (QdrantStore.create, QdrantStore.open_or_create):
        with pytest.raises(InputError, match=r"'m3rag' at the client given is not of m3rag \(1 points\).*collection="):
            make(None, MODEL, client=client)
    assert client.count("m3rag").count == 1


def test_a_collection_is_made_once(client: QdrantClient, rng: np.random.Generator) -> None:
    example = random_document(rng, "a.md", chunks=2)
    for _ in range(2):
        with QdrantStore.open_or_create(None, MODEL, client=client) as store:
            store.put_document(example.record, example.parts())
            assert store.count() == 2
    assert QdrantStore.exists(None, client=client)
    with pytest.raises(InputError, match="already an index in collection 'm3rag'"):
        QdrantStore.create(None, MODEL, client=client)
    with pytest.raises(IndexMismatchError, match=r"'random'.*not by 'other'.*m3rag rebuild"):
        QdrantStore.open_or_create(None, replace(MODEL, name="other", fingerprint="other-1"), client=client)
    assert QdrantStore.open(None, client=client).manifest.model == MODEL


def test_an_interrupted_making_is_finished(client: QdrantClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: Any, **options: Any) -> Any:
        raise ValueError("the network is gone")

    with monkeypatch.context() as patch:
        patch.setattr(client, "batch_update_points", fails)
        with pytest.raises(StoreError, match="the network is gone"):
            QdrantStore.create(None, MODEL, client=client)
    assert not QdrantStore.exists(None, client=client)
    with pytest.raises(StoreError, match="its making was interrupted"):
        QdrantStore.open(None, MODEL, client=client)
    with pytest.raises(InputError, match="not of m3rag"):
        QdrantStore.create(None, replace(MODEL, dense_dim=25), client=client)
    assert QdrantStore.open_or_create(None, MODEL, client=client).count() == 0


def test_of_two_that_make_it_at_a_time_both_have_it(client: QdrantClient, monkeypatch: pytest.MonkeyPatch) -> None:
    real = client.create_collection

    def slow(*args: Any, **options: Any) -> Any:
        monkeypatch.undo()
        QdrantStore.create(None, MODEL, client=client)
        return real(*args, **options)

    monkeypatch.setattr(client, "create_collection", slow)
    assert QdrantStore.open_or_create(None, MODEL, client=client).manifest.model == MODEL


@pytest.mark.parametrize(
    ("payload", "error", "message"),
    [
        ({"format": FORMAT + 1, "model": {"of": "tomorrow"}}, IndexMismatchError, "upgrade"),
        ({"format": OLDEST_FORMAT - 1}, IndexMismatchError, "ingest into a new collection"),
        ({"format": "x"}, StoreError, "manifest of the collection 'm3rag' .* is damaged"),
        ({"model": {"name": "x"}}, StoreError, "is damaged"),
    ],
)
def test_a_manifest_that_cannot_be_read(client: QdrantClient, payload: Any, error: Any, message: str) -> None:
    QdrantStore.create(None, MODEL, client=client)
    client.set_payload("m3rag", payload, points=[point_id("manifest", "")])
    with pytest.raises(error, match=message):
        QdrantStore.open_or_create(None, MODEL, client=client)


def test_what_was_asked_of_the_cluster_is_passed_on_and_told(
    client: QdrantClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, asked = client.create_collection, {}

    def noted(name: str, **options: Any) -> Any:
        asked.update(options)
        return real(name, **options)

    monkeypatch.setattr(client, "create_collection", noted)
    store = QdrantStore.create(
        None, MODEL, client=client, shard_number=6, replication_factor=2, write_consistency_factor=2, on_disk=True
    )
    wanted = {"shard_number": 6, "replication_factor": 2, "write_consistency_factor": 2, "on_disk_payload": True}
    assert {name: asked[name] for name in wanted} == wanted
    assert asked["vectors_config"]["colbert"].datatype == models.Datatype.FLOAT16
    assert asked["sparse_vectors_config"]["lexical"].index.on_disk is True
    told = asdict(store.info)
    assert told["on_disk"] is True
    assert (told["location"], told["collection"], told["status"]) == ("the client given", "m3rag", "green")
    assert told["points"] == 2


# Local mode


OPENER = """
import sys
from pathlib import Path
from m3rag.errors import IndexLockedError
from m3rag.store.qdrant import QdrantStore
try:
    QdrantStore.open(Path(sys.argv[1]))
except IndexLockedError as error:
    print(error)
"""


# The client leaves a connection open that it only asks for its threading.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <sqlite3.Connection")
def test_a_folder_keeps_its_collection(tmp_path: Path, rng: np.random.Generator) -> None:
    example, path = random_document(rng, "a.md", chunks=3), tmp_path / "docs"
    with QdrantStore.create(path, MODEL) as store:
        store.put_document(example.record, example.parts())
        # In another process, where the client's own leak of the lock's file is no matter.
        told = subprocess.run([sys.executable, "-c", OPENER, str(path)], capture_output=True, text=True, check=True)
        assert f"the index at {path} is in use" in told.stdout
    with QdrantStore.open(path, MODEL) as store:
        assert store.chunks_of("a.md") == list(example.chunks)
        found, expected = store.representations([chunk.id for chunk in example.chunks]), example.output
        assert np.array_equal(found.colbert, expected.colbert)


def test_memory_is_a_place_of_its_own() -> None:
    with QdrantStore.create(":memory:", MODEL) as one, QdrantStore.create(":memory:", MODEL) as two:
        assert one.count() == two.count() == 0


def test_a_client_given_stays_open(client: QdrantClient) -> None:
    store = QdrantStore.create(None, MODEL, client=client)
    store.close()
    store.close()
    with pytest.raises(StoreError, match="'m3rag' at the client given is closed"):
        store.documents()
    assert client.collection_exists("m3rag")


# Sizes


def test_too_many_token_vectors_are_refused_with_the_number_that_fits(
    client: QdrantClient, rng: np.random.Generator
) -> None:
    model = replace(MODEL, colbert_dim=1024)
    example = random_document(rng, "a.md", chunks=1, model=model)
    vectors = np.zeros((1024, 1024), np.float16)
    output = replace(example.output, colbert=vectors, offsets=np.array([0, 1024]))
    store = QdrantStore.create(None, model, client=client)
    message = r"a\.md@v1#0' has 1024 token vectors of 1024 dimensions.*here 1023 tokens.*smaller chunks"
    with pytest.raises(InputError, match=message):
        store.put_document(example.record, [(example.chunks, output)])
    with pytest.raises(InputError, match=message):
        store.upsert(example.chunks, output)
    assert store.documents() == []
    with pytest.raises(InputError, match="the query has 1024 token vectors"):
        store.candidates(output, "colbert", k=1)
    fits = replace(output, colbert=vectors[:1023], offsets=np.array([0, 1023]))
    store.put_document(example.record, [(example.chunks, fits)])
    assert len(store.representations([example.chunks[0].id]).colbert) == 1023


def test_writes_stay_below_the_size_of_a_request(
    client: QdrantClient, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("m3rag.store.qdrant_points.REQUEST_BYTES", 20_000)
    real, sizes = client.batch_update_points, []

    def measured(collection: str, *, update_operations: Any, **options: Any) -> Any:
        sizes.append(len(models.UpdateOperations(operations=update_operations).model_dump_json(exclude_none=True)))
        return real(collection, update_operations=update_operations, **options)

    monkeypatch.setattr(client, "batch_update_points", measured)
    example = random_document(rng, "a.md", chunks=40)
    large = random_document(rng, "b.md", chunks=2, metadata={"text": "x" * 30_000})
    store = QdrantStore.create(None, MODEL, client=client)
    store.put_document(example.record, [(example.chunks, example.output)])
    assert len(sizes) > 10
    assert max(sizes) < 20_000
    store.put_document(large.record, [(large.chunks, large.output)])
    assert store.count() == 42


def test_the_proxy_of_the_environment_is_not_asked_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with server(qdrant_until("/exists", 200, {"result": {"exists": False}, "status": "ok", "time": 0.0})) as url:
        assert not QdrantStore.exists(url, collection="c")
