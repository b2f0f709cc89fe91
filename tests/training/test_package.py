from __future__ import annotations

import m3rag.training


def test_every_public_name_is_there() -> None:
    for name in m3rag.training.__all__:
        assert callable(getattr(m3rag.training, name)), name
