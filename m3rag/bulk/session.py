"""A Ray session, and how its machines are shared out among encoders."""

from __future__ import annotations

import logging
import os
import socket
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from m3rag.bulk.arrow import INSTALL
from m3rag.errors import ConfigurationError, ModelError

ADDRESS = "RAY_ADDRESS"

REACHED_WITHIN = 10.0
"""Seconds in which a cluster must answer; Ray itself asks for many minutes."""


@dataclass(frozen=True, slots=True)
class Actors:
    """How many encoders, and what each of them gets."""

    count: int
    gpus: int
    cpus: int


def import_ray() -> Any:
    """The module `ray`, its `data` loaded.

    Raises:
        ImportError: If Ray Data is not installed; the command that installs it is named.
    """
    try:
        with warnings.catch_warnings():
            # Ray Data's defaults use names that Ray Data itself calls deprecated.
            warnings.simplefilter("ignore", DeprecationWarning)
            import ray.data  # noqa: PLC0415

            ray.data.DataContext.get_current()
    except ModuleNotFoundError as error:
        raise ImportError(
            f"bulk encoding needs Ray Data ({error.name} is not installed): {INSTALL}", name=error.name
        ) from error
    return ray


@contextmanager
def session(ray: Any) -> Iterator[None]:
    """Use the session there is, or the cluster of `RAY_ADDRESS`, or start one and stop it afterwards.

    Raises:
        ConfigurationError: If that cluster cannot be reached.
    """
    mine = not ray.is_initialized()
    if mine:
        _require_reachable(os.environ.get(ADDRESS, ""))
        # Nothing calls home unasked, and stderr belongs to the caller.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    data_logger = logging.getLogger("ray.data")
    level = data_logger.level
    data_logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        data_logger.setLevel(level)
        if mine:
            ray.shutdown()


def _require_reachable(address: str) -> None:
    try:
        at = urlsplit(address if "://" in address else f"//{address}")
        if not at.hostname or not at.port:
            return  # a name of Ray's own, such as `auto`
        socket.create_connection((at.hostname, at.port), timeout=REACHED_WITHIN).close()
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"the environment variable {ADDRESS} names the cluster {address!r}, which cannot be reached ({error}): "
            f"start it, or unset {ADDRESS} to work on this machine"
        ) from error


def share_out(nodes: Sequence[Mapping[str, float]], concurrency: int | None) -> Actors:
    """One GPU each where there are any, else all the CPUs in equal parts.

    Args:
        nodes: What each machine has, by Ray's names.
        concurrency: Number of encoders; by default one a GPU, or one a machine without GPUs.

    Raises:
        ConfigurationError: If there is not a GPU, or a CPU, for each.
    """
    gpus = sum(int(node.get("GPU", 0)) for node in nodes)
    cpus = [int(node.get("CPU", 0)) for node in nodes if node.get("CPU", 0) >= 1]
    count = concurrency if concurrency is not None else gpus or len(cpus)
    most, unit = (gpus, "GPUs") if gpus else (sum(cpus), "CPUs")
    if not 1 <= count <= most:
        raise ConfigurationError(f"concurrency {count} is out of range: each encoder needs one of Ray's {most} {unit}")
    if gpus:
        return Actors(count, gpus=1, cpus=1)
    # The most CPUs that an encoder can have if the nodes are to hold `count` of them.
    share = max(cpus)
    while sum(node // share for node in cpus) < count:
        share -= 1
    return Actors(count, gpus=0, cpus=share)


def plain(error: Exception) -> Exception:
    """What a task raised, out of what Ray wraps around it; where that is lost, an error about the worker."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, Exception) and not type(cause).__module__.startswith("ray."):
        return cause
    told = str(error).strip() or repr(error.__cause__)
    return ModelError(
        f"a worker of Ray failed ({told.splitlines()[0]}): if it ran out of memory, lower shard_bytes or "
        f"concurrency; the same call goes on where this one stopped"
    )
