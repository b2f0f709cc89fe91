"""A mode names its legs, and a wrong name says which there are."""

from __future__ import annotations

from dataclasses import replace

import pytest

from m3rag.errors import ConfigurationError
from m3rag.retrieval import Mode
from m3rag.retrieval.mode import M3_MODES
from m3rag.testing.data import DENSE_ONLY, MODEL


def test_legs_of_every_mode() -> None:
    assert {mode.value: mode.legs for mode in Mode} == {
        "dense": ("dense",),
        "lexical": ("lexical",),
        "colbert": ("colbert",),
        "dense+lexical": ("dense", "lexical"),
        "all": ("dense", "lexical", "colbert"),
        "bm25": ("bm25",),
        "dense+bm25": ("dense", "bm25"),
    }
    assert {mode: mode.model_legs for mode in Mode if mode.needs_bm25} == {"bm25": (), "dense+bm25": ("dense",)}
    assert set(M3_MODES) == {mode for mode in Mode if "bm25" not in mode.value}


def test_a_mode_is_parsed_from_its_name_or_itself() -> None:
    for mode in Mode:
        assert Mode.parse(mode.value) is Mode.parse(mode) is mode
    assert Mode.ALL == "all"


@pytest.mark.parametrize("name", ["sparse", "", "ALL", "lexical+dense"])
def test_an_unknown_mode_names_those_there_are(name: str) -> None:
    with pytest.raises(
        ConfigurationError, match=r"dense, lexical, colbert, dense\+lexical, all, bm25, dense\+bm25"
    ) as error:
        Mode.parse(name)
    assert repr(name) in str(error.value)


@pytest.mark.parametrize(
    ("mode", "legs"),
    [
        ("lexical", "leg lexical"),
        ("colbert", "leg colbert"),
        ("dense+lexical", "leg lexical"),
        ("all", "legs lexical and colbert"),
    ],
)
def test_a_mode_that_a_model_has_no_legs_for_is_refused(mode: str, legs: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Mode(mode).check(DENSE_ONLY)
    assert str(caught.value) == (
        f"mode '{mode}' needs the {legs}, which the model random-dense does not give: choose mode='dense', "
        "or an M3 model such as BAAI/bge-m3"
    )
    Mode(mode).check(MODEL)
    for possible in (Mode.DENSE, Mode.BM25, Mode.DENSE_BM25):
        possible.check(DENSE_ONLY)


def test_every_mode_that_is_possible_is_offered() -> None:
    with pytest.raises(ConfigurationError, match=r"choose mode='dense' or mode='lexical' or mode='dense\+lexical',"):
        Mode.ALL.check(replace(MODEL, colbert_dim=0))
