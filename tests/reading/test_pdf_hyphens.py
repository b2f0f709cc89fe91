import re

import pytest

from m3rag.reading.pdf_hyphens import Hyphens


def rejoined(text, *elsewhere):
    """A text with a `~` for pdfium's sign, as it is read in a file that says other things elsewhere."""
    raw = text.replace("~", "\ufffe")
    return re.sub("\ufffe *\n?", Hyphens([raw, *elsewhere]).rejoined, raw)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("die Vor~und Nachteile", "die Vor- und Nachteile"),
        ("Haupt~bzw. Neben", "Haupt- bzw. Neben"),
        ("VOR~UND NACHTEILE", "VOR- UND NACHTEILE"),
        ("two~and 3-fold, 2~and 3-fold", "two- and 3-fold, 2- and 3-fold"),
        ("pre~y posguerra, pre~e post", "pre- y posguerra, pre- e post"),
        ("верхне~и нижне", "верхне- и нижне"),
        ("Ver~band, unter~\nnehmen", "Verband, unternehmen"),
        ("gr~undig", "grundig"),
    ],
)
def test_a_conjunction_is_not_glued_to_what_it_completes(text, read):
    assert rejoined(text) == read


@pytest.mark.parametrize(
    ("text", "read", "elsewhere"),
    [
        ("land~en tuinbouw", "land- en tuinbouw", "het land"),
        ("die Frau~en sind", "die Frauen sind", "das Land"),
        ("four~or fivefold", "four- or fivefold", "the land"),
        ("edit~or", "editor", "the editor"),
        ("un momen~to", "un momento", "la terra"),
        ("one~to threefold", "one- to threefold", "the land"),
        ("mid~to large ones", "mid- to large ones", "the mid 1990s"),
        ("the hotel in~to the", "the hotel into the", "in"),
        ("the pho~to of it", "the photo of it", ""),
        ("a famili~a", "a familia", "una familia"),
        ("a famili~a", "a famili- a", ""),
        ("a pho~to", "a photo", "the photo"),
    ],
)
def test_conjunctions_that_end_words_too_are_told_by_the_file(text, read, elsewhere):
    assert rejoined(text, elsewhere) == read


@pytest.mark.parametrize(
    ("text", "elsewhere", "read"),
    [
        ("by full~upgrade", "a full-upgrade", "by full-upgrade"),
        ("by full~upgrade", "", "by fullupgrade"),
        ("self~ish, well~ness", "Selfish wellness", "selfish, wellness"),
        ("self~made", "selfmade, self-made", "self-made"),
        ("an e~mail", "email", "an email"),
        ("Schwarz~Weiss", "schwarzweiss", "Schwarz-Weiss"),
        ("re~creation", "re-creation, recreation", "recreation"),
        ("up-to~date", "Up-to-date", "up-to-date"),
        ("full~upgrade", "full\ufffeupgrade", "fullupgrade"),
    ],
)
def test_a_compound_is_written_as_elsewhere_in_the_file(text, elsewhere, read):
    assert rejoined(text, elsewhere) == read


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("an e~mail", "an e-mail"),
        ("y a-t~il", "y a-t-il"),
        ("well~known, self~made", "well-known, self-made"),
        ("und/o~der, d'é~tude", "und/oder, d'étude"),
        ("Schwarz~Weiss, 1~2", "Schwarz-Weiss, 1-2"),
    ],
)
def test_a_hyphen_behind_a_letter_or_a_first_part_stays(text, read):
    assert rejoined(text) == read


@pytest.mark.timeout(20)
def test_a_text_without_blanks_is_no_long_wait():
    text = "ab" * 200_000 + "~" + "cd" * 200_000 + "~" * 50_000
    assert rejoined(text).startswith("abab")
