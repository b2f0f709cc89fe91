"""The process that runs a model for `LocalChat`: llama.cpp's server on loopback, until its parent is gone."""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import Any

ERRORS_ONLY = 1  # of llama.cpp's log
PING_SECONDS = 1
"""How often a sign of life is given while a long prompt is read, which no timeout should cut."""


def main() -> None:
    """Serve the model that the first line of stdin describes; say where in a line on stdout."""
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    # What the library prints must not stand before the reply.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    setup = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        server = serving(setup)
    except Exception as error:  # noqa: BLE001 - the parent says what failed, from the log
        print(error, file=sys.stderr, flush=True)  # noqa: T201
        os._exit(1)  # an ordinary exit would trip over the library's threads
    replies.write(json.dumps({"address": server.listening_address}).encode() + b"\n")
    replies.flush()
    threading.Event().wait()


def serving(setup: dict[str, Any]) -> Any:
    """The running server of xllamacpp.

    Args:
        setup: `path`, `name`, `api_key`, `context_tokens` and `threads` (0 where llama.cpp chooses).
    """
    import xllamacpp  # noqa: PLC0415 - it may end the process, which has a reply to give first

    params = xllamacpp.CommonParams()
    params.model.path = setup["path"]
    params.model_alias = {setup["name"]}
    params.n_ctx = setup["context_tokens"]
    if setup["threads"]:
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = setup["threads"]
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [setup["api_key"]]
    params.ui = False
    params.endpoint_slots = False
    params.n_threads_http = 64  # who waits for a turn holds one; llama.cpp's own number would be five
    params.n_parallel = 1  # each further one would halve the context, and gains nothing on a CPU
    params.cache_ram_mib = 0  # no two prompts begin alike: their fences differ
    params.sse_ping_interval = PING_SECONDS
    params.warmup = False
    params.verbosity = ERRORS_ONLY
    return xllamacpp.Server(params)


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(0)
