import io

import pypdf
import pytest
from pypdf.generic import (
    ArrayObject,
    DecodedStreamObject,
    DictionaryObject,
    FloatObject,
    NameObject,
    NumberObject,
    TextStringObject,
)

from m3rag.errors import ReadError
from m3rag.reading.pdf import read_pdf
from m3rag.reading.pdf_rectangles import page_rectangles

from .pdfs import pdf

HIDDEN, NO_VIEW = 2, 32
PUSH_BUTTON = 1 << 16
TICK = "4"  # in ZapfDingbats


def names(**entries):
    return DictionaryObject({NameObject(f"/{key}"): value for key, value in entries.items()})


def name(text):
    return NameObject(f"/{text}")


def appearance(writer, text, size):
    drawn = DecodedStreamObject()
    lines = b" 0 -9 Td ".join(b"(%s) Tj" % line.encode("latin-1") for line in text.split("\n"))
    drawn.set_data(b"BT /F %s Td %s ET" % (b"8 Tf 2 11" if "\n" in text else b"12 Tf 2 4", lines))
    is_tick = text == TICK
    font = names(Type=name("Font"), Subtype=name("Type1"), BaseFont=name("ZapfDingbats" if is_tick else "Helvetica"))
    box = ArrayObject(map(FloatObject, (0, 0, *size)))
    drawn.update(names(Type=name("XObject"), Subtype=name("Form"), BBox=box, Resources=names(Font=names(F=font))))
    return names(N=writer._add_object(drawn))


def typed(data, *annotations):
    """A PDF with annotations on its first page: (kind, text, left, bottom, whether it is drawn, flags)."""
    writer = pypdf.PdfWriter(clone_from=io.BytesIO(data))
    fields = ArrayObject()
    made = ArrayObject()
    for kind, text, left, bottom, drawn, flags in annotations:
        note = names(Type=name("Annot"), Subtype=name(kind), F=NumberObject(flags))
        note[name("Rect")] = ArrayObject(map(FloatObject, (left, bottom, left + 200, bottom + 20)))
        note[name("DA")] = TextStringObject("/Helv 12 Tf 0 g")
        if kind == "Button":
            note.update(names(Subtype=name("Widget"), FT=name("Btn"), Ff=NumberObject(PUSH_BUTTON)))
            note[name("T")] = TextStringObject(text)
        elif kind == "Widget":
            note.update(names(FT=name("Tx"), T=TextStringObject(text), V=TextStringObject(text)))
        else:
            note[name("Contents")] = TextStringObject(text)
        if drawn:
            note[name("AP")] = appearance(writer, text, (200, 20))
        made.append(writer._add_object(note))
        if kind in ("Widget", "Button"):
            fields.append(made[-1])
    writer.pages[0][name("Annots")] = made
    if fields:
        font = names(Type=name("Font"), Subtype=name("Type1"), BaseFont=name("Helvetica"))
        form = names(Fields=fields, DA=TextStringObject("/Helv 12 Tf 0 g"), DR=names(Font=names(Helv=font)))
        writer.root_object[name("AcroForm")] = form
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


LABELS = [(50, 705, "Name:"), (50, 670, "City:"), (80, 600, "I agree")]


def page_of(*operators):
    """A PDF of one page with these drawn on it, in Helvetica named F."""
    writer = pypdf.PdfWriter(clone_from=io.BytesIO(pdf("")))
    content = DecodedStreamObject()
    content.set_data(" ".join(operators).encode("latin-1"))
    font = names(Type=name("Font"), Subtype=name("Type1"), BaseFont=name("Helvetica"))
    writer.pages[0][name("Contents")] = writer._add_object(content)
    writer.pages[0][name("Resources")] = names(Font=names(F=font))
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


@pytest.mark.parametrize("drawn", [True, False])
def test_what_is_typed_into_a_field_is_text_with_a_box_where_it_stands(tmp_path, drawn):
    path = tmp_path / "form.pdf"
    path.write_bytes(typed(pdf("Name:", "Page two"), ("Widget", "Anna Meier", 100, 500, drawn, 4)))
    text = read_pdf(path.read_bytes()).text
    assert text == "Name:\nAnna Meier\n\nPage two"
    start = text.index("Anna")
    (box,) = page_rectangles(path, 1, start, start + len("Anna Meier"))
    assert 100 <= box.left < box.right <= 300
    assert 842 - 520 <= box.top < box.bottom <= 842 - 500


def test_text_annotations_and_stamps_are_read_and_hidden_fields_are_not():
    data = typed(
        pdf("Base text"),
        ("FreeText", "Approved by Anna", 100, 500, True, 4),
        ("Stamp", "DRAFT", 100, 400, True, 4),
        ("Widget", "secret", 100, 300, True, HIDDEN),
    )
    content = read_pdf(data)
    assert content.text == "Base text\nApproved by Anna\nDRAFT"
    assert content.warnings == ()


def test_text_annotations_without_an_appearance_are_told():
    data = typed(pdf("Base text"), *[("FreeText", "Approved", 100, at, False, 4) for at in (400, 500)])
    content = read_pdf(data)
    assert content.text == "Base text"
    assert content.warnings == (
        "left out 2 text annotations stored without an appearance (page 1): print the file to PDF",
    )
    with pytest.raises(ReadError, match="no text layer on its only page"):
        read_pdf(typed(pdf(""), ("FreeText", "Approved", 100, 400, False, 4)))


def test_fields_of_a_page_with_right_to_left_letters_are_read(tmp_path):
    data = typed(pdf("ba", meaning={"a": "\u05d0", "b": "\u05d1"}), ("Widget", "1234", 100, 500, True, 4))
    content = read_pdf(data)
    assert content.text.split() == ["\u05d0\u05d1", "1234"]
    assert content.warnings == ()
    lines = pdf("ba\nab\naa", meaning={"a": "\u05d0", "b": "\u05d1"})
    path = tmp_path / "form.pdf"
    path.write_bytes(typed(lines, ("Widget", "1234", 300, 696, True, 4)))
    text = read_pdf(path.read_bytes()).text
    start = text.index("1234")
    (box,) = page_rectangles(path, 1, start, start + 4)
    assert 300 <= box.left < box.right < 340


def test_push_buttons_and_fields_that_no_screen_shows_are_left_out():
    data = typed(
        pdf("Base text"),
        ("Widget", "Rome", 100, 500, True, 4),
        ("Button", "Print form", 100, 400, True, 4),
        ("Widget", "for printers", 100, 300, True, 4 | NO_VIEW),
    )
    assert read_pdf(data).text == "Base text\nRome"
    assert read_pdf(typed(pdf("Base text"), ("Button", "Print form", 100, 400, True, 4))).text == "Base text"


def test_a_field_follows_its_label_and_keeps_its_box(tmp_path):
    labels = page_of(*[f"BT /F 12 Tf {x} {y} Td ({text}) Tj ET" for x, y, text in LABELS])
    path = tmp_path / "form.pdf"
    fields = [
        ("Widget", "Far away", 100, 300, True, 4),
        ("Widget", TICK, 50, 596, True, 4),
        ("Widget", "Rome", 120, 666, True, 4),
        ("Widget", "One line\nand a second", 120, 696, True, 4),
    ]
    path.write_bytes(typed(labels, *fields))
    text = read_pdf(path.read_bytes()).text
    assert text == "Name:\nOne line\nand a second\nCity:\nRome\n\u2714\nI agree\nFar away"
    for said, left, bottom in (("City", 50, 670), ("Rome", 122, 670), ("second", 122, 698), ("Far away", 102, 304)):
        start = text.index(said)
        (box,) = page_rectangles(path, 1, start, start + len(said))
        assert left <= box.left < left + 60
        assert 842 - bottom - 12 < box.top < box.bottom < 842 - bottom + 4


def test_a_field_never_tears_a_broken_word():
    broken = page_of("BT /F 12 Tf 50 700 Td (the unter-) Tj 0 -14 Td (nehmen there) Tj 0 -40 Td (The end) Tj ET")
    assert read_pdf(broken).text == "the unternehmen there\nThe end"
    for bottom in (696, 682):
        data = typed(broken, ("Widget", "Ann", 200, bottom, True, 4))
        assert read_pdf(data).text == "the unternehmen there\nAnn\nThe end"


def test_a_stamp_beside_a_line_does_not_cut_its_paragraph():
    text = page_of("BT /F 12 Tf 50 700 Td (A sentence that) Tj 0 -14 Td (goes on) Tj ET")
    data = typed(text, ("Stamp", "DRAFT", 200, 696, True, 4))
    assert read_pdf(data).text == "A sentence that\ngoes on\nDRAFT"
