"""A mode names its legs, and a wrong name says which there are."""

from __future__ import annotations

import pytest

from m3rag.errors import ConfigurationError
from m3rag.retrieval import Mode


def test_legs_of_every_mode() -> None:
    assert {mode.value: mode.legs for mode in Mode} == {
        "dense": ("dense",),
        "lexical": ("lexical",),
        "colbert": ("colbert",),
        "dense+lexical": ("dense", "lexical"),
        "all": ("dense", "lexical", "colbert"),
    }


def test_a_mode_is_parsed_from_its_name_or_itself() -> None:
    for mode in Mode:
        assert Mode.parse(mode.value) is Mode.parse(mode) is mode
    assert Mode.ALL == "all"


@pytest.mark.parametrize("name", ["sparse", "", "ALL", "lexical+dense"])
def test_an_unknown_mode_names_those_there_are(name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"dense, lexical, colbert, dense\+lexical, all") as error:
        Mode.parse(name)
    assert repr(name) in str(error.value)
