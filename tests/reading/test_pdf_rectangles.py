import re
import unicodedata

import numpy as np
import pypdfium2
import pytest

from m3rag.errors import InputError, ReadError
from m3rag.reading import read
from m3rag.reading.pdf_rectangles import page_rectangles

from .files import FILES, MANIFEST
from .pdfs import pdf

SCALE = 4  # pixels a point
REAL = pytest.mark.skipif(not MANIFEST.exists(), reason="the real files are not beside this checkout")


def ink(path, page):
    """Where a page as displayed is not white: (left, top, right, bottom) in points."""
    document = pypdfium2.PdfDocument(path)
    shown = np.asarray(document[page - 1].render(scale=SCALE).to_numpy())[..., :3].min(axis=2) < 128
    document.close()
    rows, columns = np.flatnonzero(shown.any(axis=1)), np.flatnonzero(shown.any(axis=0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) / SCALE


def sides(box):
    return np.array([box.left, box.top, box.right, box.bottom])


@pytest.mark.parametrize("turned", [0, 90, 180, 270])
@pytest.mark.parametrize("crop", [b"", b"/CropBox[30 400 300 800]"])
def test_the_box_of_a_word_is_where_its_ink_is(tmp_path, turned, crop):
    path = tmp_path / "word.pdf"
    path.write_bytes(pdf("Passage", entries=b"/Rotate %d" % turned + crop))
    (box,) = page_rectangles(path, 1, 0, 7)
    assert np.abs(sides(box) - ink(path, 1)).max() < 1


def test_a_passage_has_a_box_for_each_line_and_none_elsewhere(tmp_path):
    path = tmp_path / "a.pdf"
    path.write_bytes(pdf("First page here", "one two\nthree exam-\nple five"))
    text = read(path, root=tmp_path).text
    assert text == "First page here\n\none two\nthree example five"
    start, end = text.index("two"), text.index(" five")
    lines = page_rectangles(path, 2, start, end)
    assert np.allclose([box.left for box in lines], [74, 50, 50], atol=1)
    assert lines[0].bottom < lines[1].top < lines[1].bottom < lines[2].top
    assert page_rectangles(path, 2, 0, 15) == ()
    assert page_rectangles(path, 1, 5, end) == page_rectangles(path, 1, 5, 15)
    assert page_rectangles(path, 2, start, start) == ()


def test_hidden_characters_and_ligatures_do_not_shift_a_box(tmp_path):
    path = tmp_path / "a.pdf"
    path.write_bytes(pdf("\xadof\xadfice\xad word"))
    text = read(path, root=tmp_path).text
    start = text.index("word")
    (box,) = page_rectangles(path, 1, start, start + 4)
    assert box.right == pytest.approx(ink(path, 1)[2], abs=1)


def test_letters_beyond_the_first_65536_do_not_hide_what_follows(tmp_path):
    path = tmp_path / "a.pdf"
    path.write_bytes(pdf("XX X Y word", meaning={"X": "\U0001f600", "Y": "\U0001d465"}))
    text = read(path, root=tmp_path).text
    assert text == "\U0001f600\U0001f600 \U0001f600 \U0001d465 word"
    (whole,) = page_rectangles(path, 1, 0, len(text))
    assert np.abs(sides(whole) - ink(path, 1)).max() < 1
    (word,) = page_rectangles(path, 1, len(text) - 4, len(text))
    assert word.right == whole.right
    assert word.left > whole.left


def test_what_cannot_be_boxed_is_refused(tmp_path):
    path = tmp_path / "a.pdf"
    path.write_bytes(pdf("words"))
    with pytest.raises(InputError, match="has no page 2, only 1 to 1"):
        page_rectangles(path, 2, 0, 1)
    with pytest.raises(InputError, match=r"no characters \[0, 6\), only \[0, 5\)"):
        page_rectangles(path, 1, 0, 6)
    with pytest.raises(ReadError, match=r"missing\.pdf: could not be read"):
        page_rectangles(tmp_path / "missing.pdf", 1, 0, 1)


def letters(text):
    return sorted(re.sub(r"[\s\ufffe\u00ad-]", "", unicodedata.normalize("NFKC", text)))


@REAL
@pytest.mark.parametrize("path", sorted((FILES / "pdf").glob("*.pdf")), ids=lambda path: path.name)
def test_pdfium_finds_each_word_of_real_files_in_its_boxes(path):
    if path.name in ("japanese-vertical-poem.pdf", "slightly-corrupted-but-readable.pdf"):
        pytest.skip("pdfium cannot search it: columns that it does not see, or a turned page; tested below")
    document, again = read(path, root=FILES), pypdfium2.PdfDocument(path)
    pages = [page for page in document.pages if page.end - page.start > 30]
    for page in pages[:: max(len(pages) // 3, 1)]:
        layer = again[page.number - 1].get_textpage()
        left, _, _, top = again[page.number - 1].get_bbox()
        words = list(re.finditer(r"\S+", document.text[page.start : page.end]))
        for word in words[:: max(len(words) // 4, 1)]:
            boxes = page_rectangles(path, page.number, page.start + word.start(), page.start + word.end())
            found = [
                layer.get_text_bounded(
                    left + b.left + 0.1, top - b.bottom + 0.1, left + b.right - 0.1, top - b.top - 0.1
                )
                for b in boxes
            ]
            assert letters("".join(found)) == letters(word.group())
    again.close()


@REAL
def test_the_boxes_of_a_turned_page_are_its_ink():
    path = FILES / "pdf" / "slightly-corrupted-but-readable.pdf"
    document = read(path, root=FILES)
    boxes = np.array([sides(box) for box in page_rectangles(path, 1, 0, len(document.text))])
    together = np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])
    assert np.abs(together - ink(path, 1)).max() < 2


@REAL
def test_the_boxes_of_vertical_japanese_are_columns_from_right_to_left():
    path = FILES / "pdf" / "japanese-vertical-poem.pdf"
    text = read(path, root=FILES).text
    columns = []
    for words in ("わたくしといふ現象は", "假定された有機交流電燈の", "ひとつの青い照明です"):
        start = text.index(words)
        (box,) = page_rectangles(path, 1, start, start + len(words))
        # The font is of 9.6 points.
        assert box.bottom - box.top == pytest.approx(9.6 * len(words), abs=5)
        assert box.right - box.left == pytest.approx(9.6, abs=1)
        columns.append(box)
    assert columns[0].left > columns[1].right
    assert columns[1].left > columns[2].right
