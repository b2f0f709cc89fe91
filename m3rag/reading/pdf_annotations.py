"""What has been typed onto the pages of a PDF: form fields, text annotations, stamps."""

from __future__ import annotations

from contextlib import closing
from typing import NamedTuple

import pypdfium2
import pypdfium2.raw as pdfium

TYPED = frozenset({pdfium.FPDF_ANNOT_WIDGET, pdfium.FPDF_ANNOT_FREETEXT, pdfium.FPDF_ANNOT_STAMP})


class Shown(NamedTuple):
    """A page as it is shown.

    Attributes:
        page: Open.
        typed: Whether something typed has been drawn into it.
        undrawn: How many text annotations it has of which the file does not say how they look.
    """

    page: pypdfium2.PdfPage
    typed: bool
    undrawn: int


def page_as_shown(document: pypdfium2.PdfDocument, index: int) -> Shown:
    """Open a page with its annotations drawn into it, where they stand, if something is typed in them.

    pdfium's text layer has only what is drawn. The document is changed in memory.

    Args:
        document: Open, with its forms; those draw the fields that state no appearance.
        index: The page, from 0.

    Raises:
        pypdfium2.PdfiumError: The page is damaged.
    """
    page = document[index]
    kinds, undrawn = set(), 0
    for number in range(pdfium.FPDFPage_GetAnnotCount(page.raw)):
        annotation = pdfium.FPDFPage_GetAnnot(page.raw, number)
        if not annotation:
            continue
        kind = pdfium.FPDFAnnot_GetSubtype(annotation)
        kinds.add(kind)
        undrawn += kind == pdfium.FPDF_ANNOT_FREETEXT and not pdfium.FPDFAnnot_HasKey(annotation, b"AP")
        pdfium.FPDFPage_CloseAnnot(annotation)
    if TYPED.isdisjoint(kinds):
        return Shown(page, False, undrawn)
    with closing(page):
        pdfium.FPDFPage_Flatten(page.raw, pdfium.FLAT_NORMALDISPLAY)
    return Shown(document[index], True, undrawn)
