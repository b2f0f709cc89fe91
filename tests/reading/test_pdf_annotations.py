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

HIDDEN = 2


def names(**entries):
    return DictionaryObject({NameObject(f"/{key}"): value for key, value in entries.items()})


def name(text):
    return NameObject(f"/{text}")


def appearance(writer, text, size):
    drawn = DecodedStreamObject()
    drawn.set_data(b"BT /F 12 Tf 2 4 Td (%s) Tj ET" % text.encode("latin-1"))
    font = names(Type=name("Font"), Subtype=name("Type1"), BaseFont=name("Helvetica"))
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
        if kind == "Widget":
            note.update(names(FT=name("Tx"), T=TextStringObject(text), V=TextStringObject(text)))
        else:
            note[name("Contents")] = TextStringObject(text)
        if drawn:
            note[name("AP")] = appearance(writer, text, (200, 20))
        made.append(writer._add_object(note))
        if kind == "Widget":
            fields.append(made[-1])
    writer.pages[0][name("Annots")] = made
    if fields:
        font = names(Type=name("Font"), Subtype=name("Type1"), BaseFont=name("Helvetica"))
        form = names(Fields=fields, DA=TextStringObject("/Helv 12 Tf 0 g"), DR=names(Font=names(Helv=font)))
        writer.root_object[name("AcroForm")] = form
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


def test_fields_of_a_page_with_right_to_left_letters_are_read():
    data = typed(pdf("ba", meaning={"a": "\u05d0", "b": "\u05d1"}), ("Widget", "1234", 100, 500, True, 4))
    content = read_pdf(data)
    assert content.text.split() == ["\u05d0\u05d1", "1234"]
    assert content.warnings == ()
