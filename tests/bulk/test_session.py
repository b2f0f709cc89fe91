"""How encoders are shared out among machines, and what a worker's error becomes."""

from __future__ import annotations

import sys

import pytest

from m3rag.bulk.arrow import pyarrow
from m3rag.bulk.session import Actors, import_ray, plain, session, share_out
from m3rag.errors import ConfigurationError, InputError, ModelError

ONE = [{"CPU": 8.0, "memory": 1e9}]
THREE = [{"CPU": 8.0}, {"CPU": 4.0}, {"memory": 1e9}]
GPUS = [{"CPU": 16.0, "GPU": 2.0}, {"CPU": 16.0, "GPU": 1.0}, {"CPU": 64.0}]


@pytest.mark.parametrize(
    ("nodes", "concurrency", "expected"),
    [
        (ONE, None, Actors(1, gpus=0, cpus=8)),
        (ONE, 3, Actors(3, gpus=0, cpus=2)),
        (ONE, 8, Actors(8, gpus=0, cpus=1)),
        (THREE, None, Actors(2, gpus=0, cpus=4)),
        (THREE, 1, Actors(1, gpus=0, cpus=8)),
        (THREE, 3, Actors(3, gpus=0, cpus=4)),
        (GPUS, None, Actors(3, gpus=1, cpus=1)),
        (GPUS, 2, Actors(2, gpus=1, cpus=1)),
    ],
)
def test_each_encoder_gets_its_share(nodes: list[dict[str, float]], concurrency: int | None, expected: Actors) -> None:
    assert share_out(nodes, concurrency) == expected


@pytest.mark.parametrize(
    ("nodes", "concurrency", "message"),
    [
        (ONE, 9, "concurrency 9 is out of range: each encoder needs one of Ray's 8 CPUs"),
        (ONE, 0, "concurrency 0"),
        (GPUS, 4, "one of Ray's 3 GPUs"),
        ([{"memory": 1e9}], None, "one of Ray's 0 CPUs"),
    ],
)
def test_more_encoders_than_places_are_refused(
    nodes: list[dict[str, float]], concurrency: int | None, message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        share_out(nodes, concurrency)


def test_what_a_task_raised_counts_not_what_ray_makes_of_it() -> None:
    exceptions = import_ray().exceptions
    for cause in (InputError("a.jsonl:3: bad"), OSError("no space left")):
        wrapped = exceptions.RayTaskError("encode", "a long traceback", cause)
        assert plain(wrapped) is cause
        assert plain(wrapped.as_instanceof_cause()) is cause
    for died, told in (
        (exceptions.RayActorError(error_msg="The actor died.\nA long story."), r"\(The actor died\.\)"),
        (exceptions.RayTaskError("encode", "trace", exceptions.UserCodeException("lost")), "failed"),
    ):
        with pytest.raises(ModelError, match=told):
            raise plain(died)


@pytest.mark.parametrize(("module", "load"), [("ray", import_ray), ("ray.data", import_ray), ("pyarrow", pyarrow)])
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, module: str, load: object
) -> None:
    for name in [name for name in sys.modules if name == module or name.startswith(f"{module}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    assert callable(load)
    with pytest.raises(ImportError, match=r'pip install "m3rag\[ray\]"'):
        load()


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "ray://[::1"])
def test_a_cluster_that_cannot_be_reached_is_named_at_once(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    ray = import_ray()
    told = r"RAY_ADDRESS names the cluster .* cannot be reached .* unset RAY"
    with pytest.raises(ConfigurationError, match=told), session(ray):
        pytest.fail("there is no such cluster")
    assert not ray.is_initialized()
