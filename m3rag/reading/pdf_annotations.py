"""What has been typed onto the pages of a PDF: form fields, text annotations, stamps."""

from __future__ import annotations

from contextlib import closing
from typing import Any, NamedTuple

import pypdfium2
import pypdfium2.raw as pdfium

TYPED = frozenset({pdfium.FPDF_ANNOT_WIDGET, pdfium.FPDF_ANNOT_FREETEXT, pdfium.FPDF_ANNOT_STAMP})


class Shown(NamedTuple):
    """A page as it is shown.

    Attributes:
        page: Open.
        typed: Whether something typed has been drawn into it.
        undrawn: How many text annotations it has of which the file does not say how they look.
        unfilled: Its text without what is typed, if that is form fields alone.
        fields: The boxes of those fields: left, bottom, right and top in points, upwards from below.
    """

    page: pypdfium2.PdfPage
    typed: bool
    undrawn: int
    unfilled: str
    fields: tuple[tuple[float, float, float, float], ...]


def page_as_shown(document: pypdfium2.PdfDocument, index: int) -> Shown:
    """Open a page with its annotations drawn into it, where they stand, if something is typed in them.

    pdfium's text layer has only what is drawn. Push buttons and what a screen does not show are left out.
    The document is changed in memory.

    Args:
        document: Open, with its forms; those draw the fields that state no appearance.
        index: The page, from 0.

    Raises:
        pypdfium2.PdfiumError: The page is damaged.
    """
    page = document[index]
    kinds, undrawn, fields = set(), 0, []
    for number in range(pdfium.FPDFPage_GetAnnotCount(page.raw)):
        annotation = pdfium.FPDFPage_GetAnnot(page.raw, number)
        if not annotation:
            continue
        kind, flags = pdfium.FPDFAnnot_GetSubtype(annotation), pdfium.FPDFAnnot_GetFlags(annotation)
        if flags & pdfium.FPDF_ANNOT_FLAG_NOVIEW or _is_push_button(document, annotation):
            pdfium.FPDFAnnot_SetFlags(annotation, flags | pdfium.FPDF_ANNOT_FLAG_HIDDEN)
        else:
            kinds.add(kind)
            box = pdfium.FS_RECTF()
            if kind == pdfium.FPDF_ANNOT_WIDGET and pdfium.FPDFAnnot_GetRect(annotation, box):
                fields.append((box.left, box.bottom, box.right, box.top))
            undrawn += kind == pdfium.FPDF_ANNOT_FREETEXT and not pdfium.FPDFAnnot_HasKey(annotation, b"AP")
        pdfium.FPDFPage_CloseAnnot(annotation)
    if TYPED.isdisjoint(kinds):
        return Shown(page, False, undrawn, "", ())
    unfilled = ""
    with closing(page):
        if TYPED & kinds == {pdfium.FPDF_ANNOT_WIDGET}:
            with closing(page.get_textpage()) as layer:
                unfilled = str(layer.get_text_range())
        pdfium.FPDFPage_Flatten(page.raw, pdfium.FLAT_NORMALDISPLAY)
    return Shown(document[index], True, undrawn, unfilled, tuple(fields))


def _is_push_button(document: pypdfium2.PdfDocument, annotation: Any) -> bool:
    # Without forms nothing draws them but their own appearance, and nothing tells their kind.
    forms = document.formenv
    return (
        forms is not None
        and pdfium.FPDFAnnot_GetFormFieldType(forms.raw, annotation) == pdfium.FPDF_FORMFIELD_PUSHBUTTON
    )
