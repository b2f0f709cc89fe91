"""The formats that can be read, and how another one is added."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module

from m3rag.errors import InputError
from m3rag.reading.content import Content, Reader
from m3rag.reading.detect import KINDS, TEXT_KINDS


@dataclass(frozen=True, slots=True)
class Format:
    """A format that can be read.

    Attributes:
        name: For messages.
        suffixes: Lower case, with the dot.
        reader: Bytes in, `Content` out; a function of a module, so that another process can import it.
        magic: First bytes that name the format whatever the file is called; empty for text formats.
        kinds: What `detect.kind_of` calls the format, for those it knows.
        takes_password: Whether the reader has a keyword argument `password`.
    """

    name: str
    suffixes: tuple[str, ...]
    reader: Reader
    magic: bytes = b""
    kinds: tuple[str, ...] = ()
    takes_password: bool = False

    @property
    def is_text(self) -> bool:
        """Whether nothing but the suffix tells the format from another one."""
        return not self.magic and TEXT_KINDS.issuperset(self.kinds)


@dataclass(frozen=True, slots=True)
class _Lazy:
    """A reader whose module, and the library behind it, is imported when a file is first read."""

    module: str
    name: str

    def __call__(self, data: bytes, **options: str | None) -> Content:
        reader: Reader = getattr(import_module(f"m3rag.reading.{self.module}"), self.name)
        return reader(data, **options)


FORMATS: tuple[Format, ...] = (
    Format("plain text", (".txt", ".text"), _Lazy("text", "read_text"), kinds=("text",)),
    Format("Markdown", (".md", ".markdown"), _Lazy("markdown", "read_markdown")),
    Format("HTML", (".html", ".htm", ".xhtml"), _Lazy("html", "read_html"), kinds=("html",)),
    Format("CSV", (".csv",), _Lazy("csv", "read_csv")),
    Format("TSV", (".tsv",), _Lazy("csv", "read_tsv")),
    Format("JSON", (".json",), _Lazy("json", "read_json"), kinds=("json",)),
    Format("JSON lines", (".jsonl", ".ndjson"), _Lazy("json", "read_json_lines")),
    Format("e-mail", (".eml",), _Lazy("eml", "read_eml"), kinds=("eml",)),
    Format("PDF", (".pdf",), _Lazy("pdf", "read_pdf"), kinds=("pdf",), takes_password=True),
    Format("Word document", (".docx", ".docm", ".dotx", ".dotm"), _Lazy("docx", "read_docx"), kinds=("docx",)),
    Format(
        "PowerPoint presentation", (".pptx", ".pptm", ".ppsx", ".potx"), _Lazy("pptx", "read_pptx"), kinds=("pptx",)
    ),
    Format("Excel workbook", (".xlsx", ".xlsm", ".xltx", ".xltm"), _Lazy("xlsx", "read_xlsx"), kinds=("xlsx",)),
    Format("OpenDocument text", (".odt", ".ott"), _Lazy("odt", "read_odf"), kinds=("odt",)),
    Format("OpenDocument spreadsheet", (".ods", ".ots"), _Lazy("odt", "read_odf"), kinds=("ods",)),
    Format("OpenDocument presentation", (".odp", ".otp"), _Lazy("odt", "read_odf"), kinds=("odp",)),
    Format("RTF", (".rtf",), _Lazy("rtf", "read_rtf"), kinds=("rtf",)),
    Format("EPUB", (".epub",), _Lazy("epub", "read_epub"), kinds=("epub",)),
)
"""The built-in formats."""

SUPPORTED_SUFFIXES: frozenset[str] = frozenset(s for f in FORMATS for s in f.suffixes)
"""Those of the built-in formats."""

_registered: dict[str, Format] = {}


def register(added: Format) -> None:
    """Add a format, or replace the one of the same name.

    ```python
    def read_log(data: bytes) -> Content:
        return Content(data.decode())

    register(Format("logs", (".log",), read_log))
    ```

    It holds for this process. What it recognises goes before the built-in formats.

    Args:
        added: The format with its reader.

    Raises:
        InputError: A suffix is not in lower case with its dot, a kind is not known, or nothing says
            which files are of the format.
    """
    if not (added.suffixes or added.magic or added.kinds):
        raise InputError(f"the format {added.name!r} has no suffixes, magic or kinds; give one of them")
    for suffix in added.suffixes:
        if not suffix.startswith(".") or suffix != suffix.lower() or len(suffix) < 2:
            raise InputError(f"the suffix {suffix!r} of {added.name!r} must be like '.log': lower case, with the dot")
    for kind in added.kinds:
        if kind not in KINDS:
            raise InputError(f"the kind {kind!r} of {added.name!r} is not known; kinds are {', '.join(KINDS)}")
    _registered[added.name] = added


def formats_known() -> tuple[Format, ...]:
    """All formats, those that were registered first."""
    return (*_registered.values(), *(f for f in FORMATS if f.name not in _registered))


def supported_suffixes(formats: Iterable[Format] | None = None) -> frozenset[str]:
    """The suffixes of some formats; of all, registered ones too, if None."""
    return frozenset(s for f in (formats_known() if formats is None else formats) for s in f.suffixes)
