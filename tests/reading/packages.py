"""Small ZIP packages for tests, written part by part where no library writes what is to be tested."""

import io
import zipfile

RELATIONS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
WORD = (
    'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main" '
    f'xmlns:r="{RELATIONS}" '
    'xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006" '
    'xmlns:wps="http://schemas.microsoft.com/office/word/2010/wordprocessingShape" '
    'xmlns:v="urn:schemas-microsoft-com:vml" '
    'xmlns:m="http://schemas.openxmlformats.org/officeDocument/2006/math" '
    'xmlns:c="http://schemas.openxmlformats.org/drawingml/2006/chart" '
    'xmlns:dgm="http://schemas.openxmlformats.org/drawingml/2006/diagram"'
)
OPEN = "urn:oasis:names:tc:opendocument:xmlns"
OPENDOCUMENT = " ".join(
    f'xmlns:{name}="{OPEN}:{name}:1.0"' for name in ("office", "text", "table", "draw", "style", "presentation", "meta")
)


def zipped(parts, *, compression=zipfile.ZIP_DEFLATED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def rels(*targets):
    """A part of references: `(kind, target)` with ids rId1, rId2..."""
    entries = "".join(
        f'<Relationship Id="rId{number}" Type="{RELATIONS}/{kind}" Target="{target}"/>'
        for number, (kind, target) in enumerate(targets, 1)
    )
    namespace = "http://schemas.openxmlformats.org/package/2006/relationships"
    return f'<?xml version="1.0"?><Relationships xmlns="{namespace}">{entries}</Relationships>'


def docx(body, *, parts=None, targets=(), declaration=""):
    """A Word document with that XML in its body, and parts that the document refers to."""
    return zipped(
        {
            "[Content_Types].xml": "<Types/>",
            "_rels/.rels": rels(("officeDocument", "word/document.xml")),
            "word/_rels/document.xml.rels": rels(*targets),
            "word/document.xml": (
                f"<?xml version='1.0'?>{declaration}<w:document {WORD}><w:body>{body}</w:body></w:document>"
            ),
            **(parts or {}),
        }
    )


def p(text, *, properties="", run=""):
    """A paragraph of Word with one run."""
    return f"<w:p><w:pPr>{properties}</w:pPr><w:r><w:rPr>{run}</w:rPr><w:t>{text}</w:t></w:r></w:p>"


def chart(title, **series):
    """A chart's part: its title, and series of `{category: value}`."""

    def cache(kind, values):
        points = "".join(f'<c:pt idx="{at}"><c:v>{value}</c:v></c:pt>' for at, value in enumerate(values))
        return f"<c:{kind}Ref><c:{kind}Cache>{points}</c:{kind}Cache></c:{kind}Ref>"

    plotted = "".join(
        f"<c:ser><c:tx>{cache('str', [name])}</c:tx><c:cat>{cache('str', values)}</c:cat>"
        f"<c:val>{cache('num', values.values())}</c:val></c:ser>"
        for name, values in series.items()
    )
    return (
        f"<?xml version='1.0'?><c:chartSpace {WORD} xmlns:a='a'><c:chart><c:title><c:tx><c:rich><a:p><a:r><a:t>{title}"
        f"</a:t></a:r></a:p></c:rich></c:tx></c:title><c:plotArea><c:barChart>{plotted}</c:barChart></c:plotArea>"
        "</c:chart></c:chartSpace>"
    )


def odf(body, *, kind="text", automatic="", styles=None, manifest=None, parts=None):
    """An OpenDocument file with that XML in its body."""
    content = (
        f'<?xml version="1.0"?><office:document-content {OPENDOCUMENT}><office:automatic-styles>{automatic}'
        f"</office:automatic-styles><office:body><office:{kind}>{body}</office:{kind}></office:body>"
        "</office:document-content>"
    )
    named = {"text": "text", "spreadsheet": "spreadsheet", "presentation": "presentation"}.get(kind, "graphics")
    common = f"<office:document-styles {OPENDOCUMENT}>{styles or ''}</office:document-styles>"
    return zipped(
        {
            "mimetype": f"application/vnd.oasis.opendocument.{named}",
            "content.xml": content,
            "styles.xml": common,
            **({"META-INF/manifest.xml": manifest} if manifest else {}),
            **(parts or {}),
        }
    )


def epub(chapters, *, nav="", ncx="", parts=None, package=None):
    """A book of `{file name: XHTML}` in that order, with a navigation page or an NCX."""
    items = dict.fromkeys(chapters, "application/xhtml+xml")
    manifest = "".join(
        f'<item id="i{n}" href="{name}" media-type="{kind}"/>' for n, (name, kind) in enumerate(items.items())
    )
    manifest += '<item id="nav" href="nav.xhtml" properties="nav" media-type="application/xhtml+xml"/>' if nav else ""
    manifest += '<item id="ncx" href="toc.ncx" media-type="application/x-dtbncx+xml"/>' if ncx else ""
    spine = ('<itemref idref="nav"/>' if nav else "") + "".join(f'<itemref idref="i{n}"/>' for n in range(len(items)))
    opf = (
        '<package xmlns="http://www.idpf.org/2007/opf" version="3.0"><metadata '
        'xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>A book</dc:title></metadata>'
        f"<manifest>{manifest}</manifest><spine toc='ncx'>{spine}</spine></package>"
    )
    container = (
        '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
        '<rootfile full-path="OPS/book.opf"/></rootfiles></container>'
    )
    return zipped(
        {
            "mimetype": "application/epub+zip",
            "META-INF/container.xml": container,
            "OPS/book.opf": package or opf,
            **{f"OPS/{name}": page for name, page in chapters.items() if page is not None},
            **({"OPS/nav.xhtml": nav} if nav else {}),
            **({"OPS/toc.ncx": ncx} if ncx else {}),
            **(parts or {}),
        }
    )


def spans_hold(content):
    """Headings are spans of the text, pages are spans in order."""
    for heading in content.headings:
        assert content.text[heading.start : heading.end] == heading.text
    end = 0
    for page in content.pages:
        assert end <= page.start <= page.end <= len(content.text)
        end = page.end
