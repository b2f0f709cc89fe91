"""The caches themselves: bytes under keys, within a budget, the least recently used given up first."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from m3rag.encoder.cache import EmbeddingCache, MemoryCache
from m3rag.encoder.disk_cache import EVICTED_AT_ONCE, LEAST_BYTES, USES_KEPT_BACK, DiskCache
from m3rag.errors import ConfigurationError, InputError, StoreError

MakeCache = Callable[[int], EmbeddingCache]
DAMAGED = r"embeddings\.cache is damaged \(.+\): delete it with its -wal and -shm files.*encoded anew"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "embeddings.cache"


@pytest.fixture(params=["memory", "disk"])
def make_cache(request: pytest.FixtureRequest, path: Path) -> Iterator[MakeCache]:
    with contextlib.ExitStack() as stack:

        def make(max_bytes: int) -> EmbeddingCache:
            if request.param == "memory":
                return MemoryCache(max_bytes=max_bytes, clock=Clock())
            return stack.enter_context(DiskCache(path, max_bytes=max_bytes, clock=Clock()))

        yield make


def value_of(key: bytes, size: int = 40_000) -> bytes:
    return random.Random(key).randbytes(size)


def keys_of(n: int, *, start: int = 0) -> list[bytes]:
    return [f"key-{i:06}".encode() for i in range(start, start + n)]


def filled(cache: EmbeddingCache, keys: list[bytes], size: int = 40_000) -> None:
    for key in keys:
        cache.put({key: value_of(key, size)})


def test_what_was_put_is_found_and_counted(make_cache: MakeCache) -> None:
    cache = make_cache(10 * LEAST_BYTES)
    values = {key: value_of(key, size) for key, size in zip(keys_of(4), (0, 1, 40_000, 3_000_000), strict=True)}
    cache.put(values)
    assert cache.get([*values, b"other"]) == values
    assert cache.get([]) == {}
    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.entries) == (4, 1, 4)
    assert 3_040_001 <= stats.bytes <= 3_300_000


def test_putting_a_value_again_holds_it_once(make_cache: MakeCache) -> None:
    cache = make_cache(10 * LEAST_BYTES)
    filled(cache, keys_of(3))
    before = cache.stats()
    filled(cache, keys_of(3))
    assert cache.stats() == before


def test_the_least_recently_used_go_first(make_cache: MakeCache) -> None:
    cache = make_cache(10 * LEAST_BYTES)
    keys = keys_of(200)  # 8 MB of the budget's 10.5
    filled(cache, keys)
    kept = keys[:20]
    assert set(cache.get(kept)) == set(kept)
    filled(cache, keys_of(100, start=200))  # 12 MB
    found = cache.get(keys)
    assert set(kept) <= set(found)
    rest = [key in found for key in keys[20:]]
    assert rest == sorted(rest)  # of the others exactly the oldest are gone
    assert 0 < rest.index(True) < 100
    assert len(cache.get(keys_of(100, start=200))) == 100


@pytest.mark.parametrize("size", [300, 40_000, 400_000])
def test_the_budget_is_kept_to(make_cache: MakeCache, size: int) -> None:
    budget = 4 * LEAST_BYTES
    cache = make_cache(budget)
    n = 3 * budget // size
    keys = keys_of(n)
    for start in range(0, n, max(n // 50, 1)):
        cache.put({key: value_of(key, size) for key in keys[start : start + max(n // 50, 1)]})
        assert cache.stats().bytes <= budget
    assert cache.stats().bytes > 0.7 * budget
    assert set(cache.get(keys[-5:])) == set(keys[-5:])


def test_a_value_larger_than_the_budget_is_not_held(make_cache: MakeCache) -> None:
    cache = make_cache(LEAST_BYTES)
    cache.put({b"large": bytes(2 * LEAST_BYTES)})
    assert cache.get([b"large"]) == {}
    assert cache.stats().entries == 0
    cache.put({b"small": b"value"})
    cache.put({b"large": bytes(2 * LEAST_BYTES)})
    assert cache.get([b"small", b"large"]) == {b"small": b"value"}, "it drove out what fits"


def test_threads_share_a_cache(make_cache: MakeCache) -> None:
    cache = make_cache(4 * LEAST_BYTES)
    keys = keys_of(150)  # 6 MB of 4, so that some are evicted all the time

    def work(seed: int) -> int:
        found = 0
        for key in random.Random(seed).choices(keys, k=150):
            value = cache.get([key]).get(key)
            if value is None:
                cache.put({key: value_of(key)})
            else:
                assert value == value_of(key)
                found += 1
        return found

    with ThreadPoolExecutor(4) as pool:
        found = sum(pool.map(work, range(4)))
    stats = cache.stats()
    assert (stats.hits, stats.hits + stats.misses) == (found, 600)
    assert stats.bytes <= 4 * LEAST_BYTES


@pytest.mark.parametrize(
    ("options", "message"),
    [({"max_bytes": 0}, "max_bytes must be at least 1, got 0"), ({"ttl": 0.0}, "ttl must be more than 0 seconds")],
)
def test_bad_options_of_the_memory_cache_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        MemoryCache(**options)


def test_values_in_memory_live_until_ttl_after_their_last_use() -> None:
    now = 0.0
    cache = MemoryCache(ttl=60, clock=lambda: now)
    cache.put({b"a": b"1", b"b": b"2"})
    now = 59.0
    assert cache.get([b"a"]) == {b"a": b"1"}
    now = 60.0
    assert cache.get([b"a", b"b"]) == {b"a": b"1"}
    now = 119.0
    assert cache.stats().entries == 1
    now = 120.0
    assert (cache.stats().entries, cache.stats().bytes) == (0, 0)


def test_values_on_disk_outlive_the_object(path: Path) -> None:
    keys = keys_of(20)
    with DiskCache(path) as cache:
        filled(cache, keys)
    with DiskCache(path) as cache:
        assert cache.get(keys) == {key: value_of(key) for key in keys}
        assert cache.stats().hits == 20


def test_uses_are_noted_without_a_put_and_at_the_close(path: Path) -> None:
    clock = Clock()
    keys = keys_of(USES_KEPT_BACK + 2_000)
    with DiskCache(path, clock=clock) as cache:
        cache.put({key: value_of(key, 100) for key in keys})
        cache.get(keys[:USES_KEPT_BACK])  # enough uses to be written at once
        with DiskCache(path, clock=clock) as other:
            other.get([keys[-1]])
    with DiskCache(path, max_bytes=LEAST_BYTES, clock=clock) as cache:
        cache.put({b"more": bytes(500_000)})
        found = cache.get(keys)
        assert len(found) < len(keys)
        assert {*keys[:USES_KEPT_BACK], keys[-1]} <= set(found)


def test_a_smaller_budget_takes_effect_with_the_next_put(path: Path) -> None:
    with DiskCache(path, max_bytes=20 * LEAST_BYTES) as cache:
        cache.put({key: value_of(key, 5_000) for key in keys_of(2 * EVICTED_AT_ONCE)})
        assert cache.stats().bytes > 9 * LEAST_BYTES
    with DiskCache(path, max_bytes=LEAST_BYTES) as cache:
        cache.put({b"more": b"value"})
        assert cache.stats().bytes <= 0.95 * LEAST_BYTES
        assert cache.get([b"more"]) == {b"more": b"value"}


def test_a_closed_cache_says_so(path: Path) -> None:
    cache = DiskCache(path)
    cache.close()
    cache.close()
    for use in (lambda: cache.get([b"key"]), lambda: cache.put({b"key": b""}), cache.stats):
        with pytest.raises(StoreError, match=r"embeddings\.cache is closed: open it again"):
            use()


# Several processes -----------------------------------------------------------------------------

WRITER = """
import random, sys
from m3rag.encoder.disk_cache import DiskCache
path, start, n, loops = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
with DiskCache(path, max_bytes=2 * 2**30) as cache:
    print("ready", flush=True)
    sys.stdin.readline()
    for loop in range(loops):
        keys = [f"key-{i:06}".encode() for i in range(start + loop * n, start + loop * n + n)]
        for at in range(0, n, 10):
            part = keys[at : at + 10]
            cache.put({key: random.Random(key).randbytes(40_000) for key in part})
            assert len(cache.get(part)) == 10
        print("loop", loop, flush=True)
"""


def start_writer(path: Path, *, start: int, n: int, loops: int = 1) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), str(start), str(n), str(loops)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def let_go(*writers: subprocess.Popen[str]) -> None:
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("\n")
        writer.stdin.flush()


def test_processes_that_open_a_new_file_at_once_all_get_one(path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        codes = list(pool.map(lambda _: run_python(f"DiskCache({str(path)!r}).close()").returncode, range(8)))
    assert codes == [0] * 8
    with DiskCache(path) as cache:
        assert cache.stats().entries == 0


def test_two_processes_write_the_same_file(path: Path) -> None:
    writers = [start_writer(path, start=start, n=300) for start in (0, 200)]  # 100 keys are of both
    let_go(*writers)
    for writer in writers:
        writer.communicate(timeout=120)
        assert writer.returncode == 0
    keys = keys_of(500)
    with DiskCache(path) as cache:
        assert cache.get(keys) == {key: value_of(key) for key in keys}
        assert cache.stats().entries == 500


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no kill -9 on Windows")
def test_a_killed_process_leaves_nothing_half_written(path: Path) -> None:
    for turn in range(3):
        killed = start_writer(path, start=10_000 * turn, n=100, loops=50)
        other = start_writer(path, start=100_000, n=100, loops=2)
        let_go(killed, other)
        assert killed.stdout is not None
        assert killed.stdout.readline() == "loop 0\n"  # now in the middle of what follows
        killed.kill()
        killed.communicate(timeout=60)
        assert killed.returncode == -signal.SIGKILL
        other.communicate(timeout=120)
        assert other.returncode == 0
        with DiskCache(path, max_bytes=2 * 2**30) as cache:
            acknowledged = [*keys_of(100, start=10_000 * turn), *keys_of(200, start=100_000)]
            assert set(cache.get(acknowledged)) == set(acknowledged)
            for key, value in cache.get(keys_of(1_000, start=10_000 * turn + 100)).items():
                assert value == value_of(key)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on Windows")
def test_a_forked_child_opens_the_file_for_itself(path: Path) -> None:
    code = f"""
import os
cache = DiskCache({str(path)!r})
cache.put({{b"parent": b"1"}})
child = os.fork()
if child == 0:
    assert cache.get([b"parent"]) == {{b"parent": b"1"}}
    cache.put({{b"child": b"2"}})
    cache.close()
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert cache.get([b"parent", b"child"]) == {{b"parent": b"1", b"child": b"2"}}
cache.close()
"""
    run = run_python(code)
    assert run.returncode == 0, run.stderr


def test_a_writer_that_never_ends_is_told(path: Path) -> None:
    with DiskCache(path, timeout=0.1) as cache, contextlib.closing(sqlite3.connect(path)) as other:
        cache.put({b"key": b"value"})
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match=r"embeddings\.cache cannot be used .*another process .* for 0\.1 s: end"):
            cache.put({b"other": b"value"})
        assert cache.get([b"key"]) == {b"key": b"value"}  # readers do not wait
        other.rollback()
        cache.put({b"other": b"value"})


# Files that are no cache, or cannot be one -------------------------------------------------------


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    program = f"from m3rag.encoder.disk_cache import DiskCache\n{code}"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)


def test_a_file_of_something_else_is_left_alone(path: Path) -> None:
    path.write_bytes(b"dear diary, " * 1000)
    with pytest.raises(StoreError, match=DAMAGED):
        DiskCache(path)
    assert path.read_bytes() == b"dear diary, " * 1000


def test_a_database_of_something_else_is_left_alone(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE diary (day TEXT)")
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"embeddings\.cache is a database of something else: give another file"):
        DiskCache(path)
    assert path.read_bytes() == before


def test_a_file_of_a_newer_m3rag_is_refused(path: Path) -> None:
    DiskCache(path).close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 2")
    with pytest.raises(StoreError, match=r"has format 2, this m3rag reads up to 1: upgrade it"):
        DiskCache(path)


@pytest.mark.parametrize("what", ["cut", "zeroed head", "zeroed middle", "flipped bit"])
def test_damage_is_told_and_nothing_is_deleted(path: Path, what: str) -> None:
    keys = keys_of(50)
    with DiskCache(path) as cache:
        filled(cache, keys)
    content = bytearray(path.read_bytes())
    size = len(content)
    if what == "cut":
        del content[size // 2 :]
    elif what == "zeroed head":
        content[100:20_000] = bytes(19_900)
    elif what == "zeroed middle":
        content[size // 4 : 3 * size // 4] = bytes(3 * size // 4 - size // 4)
    else:
        content[content.index(value_of(keys[7], 40_000)[:64]) + 20] ^= 1
    path.write_bytes(content)
    with pytest.raises(StoreError, match=DAMAGED), DiskCache(path) as cache:
        cache.get(keys)
    assert path.read_bytes() == content


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder: give a file"):
        DiskCache(tmp_path)


def test_a_path_below_a_file_is_refused(path: Path) -> None:
    path.write_text("a file")
    with pytest.raises(StoreError, match=r"no embedding cache can be made at .*folder you may write to"):
        DiskCache(path / "embeddings.cache")


def test_a_budget_too_small_is_refused(path: Path) -> None:
    with pytest.raises(ConfigurationError, match="max_bytes must be at least 1,048,576, got 1,000"):
        DiskCache(path, max_bytes=1000)
    assert not path.exists()


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder that even root cannot write to")
def test_a_folder_that_cannot_be_written_is_told() -> None:
    with pytest.raises(StoreError, match=r"/proc/self/embeddings\.cache cannot be used .*folder may be written to"):
        DiskCache("/proc/self/embeddings.cache")


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
def test_a_full_disk_is_told_and_the_rest_stays(path: Path) -> None:
    code = f"""
import resource, signal
from m3rag.errors import StoreError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
cache = DiskCache({str(path)!r})
cache.put({{b"before": b"value"}})
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))
try:
    for i in range(100):
        cache.put({{b"%d" % i: bytes(100_000)}})
except StoreError as error:
    print(error)
assert cache.get([b"before"]) == {{b"before": b"value"}}
"""
    run = run_python(code)
    assert run.returncode == 0, run.stderr
    assert "embeddings.cache cannot be used" in run.stdout
    assert "disk has room" in run.stdout or "free some room" in run.stdout
    with DiskCache(path) as cache:
        assert cache.get([b"before", b"0"]) == {b"before": b"value", b"0": bytes(100_000)}


def test_a_file_that_may_grow_no_more_is_told(path: Path) -> None:
    with DiskCache(path) as cache:
        cache._connection.execute("PRAGMA max_page_count = 20")
        with pytest.raises(StoreError, match=r"cannot be used \(database or disk is full\): free some room"):
            filled(cache, keys_of(50))
        assert cache.get(keys_of(1)) == {keys_of(1)[0]: value_of(keys_of(1)[0])}
