"""The optional reader through docling: layout and tables of PDFs by its models, text in images by OCR.

A file is read by it in the process that `m3rag.reading.readers.sandbox_of("docling")` gives.
"""

from __future__ import annotations

import io
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from m3rag.errors import ReadError
from m3rag.reading.archive import Archive
from m3rag.reading.content import Content
from m3rag.reading.docling_document import content_of
from m3rag.reading.formats import Format
from m3rag.reading.pdf_pages import ONE_AT_A_TIME, opened

MODELS = (
    "run `docling-tools models download` where the network is, and set DOCLING_ARTIFACTS_PATH to the folder it names"
)


def require_docling() -> None:
    """Say what to install, before the first file.

    Raises:
        ImportError: docling is not installed.
    """
    if find_spec("docling") is None:
        raise ImportError('the reader "docling" needs docling: pip install "m3rag[docling]"', name="docling")


def read_pdf(data: bytes, *, password: str | None = None) -> Content:
    """Read a PDF: its layout by a model, its tables by another, pages without a text layer by OCR.

    Raises:
        ReadError: docling cannot read it, or has no models.
        ImportError: docling is not installed.
    """
    with ONE_AT_A_TIME, opened(data, password):
        pass  # refuses by name what is damaged or needs a password
    return _read(data, "file.pdf", password)


def read_docx(data: bytes) -> Content:
    """Read a Word document; raises as `read_pdf`. Page headers are not in it."""
    Archive(data)  # refuses what is not safe to unpack
    return _read(data, "file.docx")


def read_pptx(data: bytes) -> Content:
    """Read a presentation, a page for each slide; raises as `read_pdf`."""
    Archive(data)
    return _read(data, "file.pptx")


def read_image(data: bytes) -> Content:
    """Read the text in an image by OCR; raises as `read_pdf`."""
    return _read(data, "file.png")  # docling looks at the bytes to tell images apart


DOCLING_FORMATS: tuple[Format, ...] = (
    Format("PDF", (".pdf",), read_pdf, kinds=("pdf",), takes_password=True),
    Format("Word document", (".docx", ".docm", ".dotx", ".dotm"), read_docx, kinds=("docx",)),
    Format("PowerPoint presentation", (".pptx", ".pptm", ".ppsx", ".potx"), read_pptx, kinds=("pptx",)),
    Format("image", (".png", ".jpg", ".jpeg", ".tif", ".tiff"), read_image, kinds=("png", "jpeg", "tiff")),
)
"""What docling reads better than nothing or otherwise than we do; the rest stays with the built-in readers."""


def _read(data: bytes, name: str, password: str | None = None) -> Content:
    require_docling()
    streams, hub = import_module("docling.datamodel.base_models"), import_module("huggingface_hub.errors")
    stream = streams.DocumentStream(name=name, stream=io.BytesIO(data))
    try:
        result = _converter(password).convert(stream)
    except (hub.LocalEntryNotFoundError, FileNotFoundError) as error:
        raise ReadError(f"docling has no models for it ({type(error).__name__}): {MODELS}") from error
    except ImportError as error:
        raise ReadError(
            f'a part of docling is missing ({error}): pip install "m3rag[docling]" brings all of it'
        ) from error
    except RuntimeError as error:  # docling's own errors are of this class
        raise ReadError(f"docling cannot read it ({error}): read it without docling, or repair it") from error
    told = tuple(f"docling: {error.error_message}" for error in result.errors)
    content = content_of(result.document.export_to_dict())
    if not content.text.strip() and told:
        raise ReadError(f"docling found no text in it ({'; '.join(told)}): install one of docling's OCR engines")
    return Content(
        content.text,
        title=content.title,
        pages=content.pages,
        headings=content.headings,
        warnings=(*content.warnings, *told),
    )


@lru_cache(maxsize=2)
def _converter(password: str | None) -> Any:
    """A converter loads its models once, so it is kept; one for a password beside it."""
    converters = import_module("docling.document_converter")
    if password is None:
        return converters.DocumentConverter()
    base, backends = import_module("docling.datamodel.base_models"), import_module("docling.datamodel.backend_options")
    option = converters.PdfFormatOption(backend_options=backends.PdfBackendOptions(password=password))
    return converters.DocumentConverter(format_options={base.InputFormat.PDF: option})
