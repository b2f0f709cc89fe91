import pytest

from m3rag.errors import ReadError
from m3rag.reading.epub import read_epub

from .packages import epub, spans_hold


def page(body, head="<title>t</title>"):
    return (
        f'<?xml version="1.0" encoding="UTF-8"?><html xmlns="http://www.w3.org/1999/xhtml">'
        f"<head>{head}</head><body>{body}</body></html>"
    )


def read(chapters, **options):
    content = read_epub(epub(chapters, **options))
    spans_hold(content)
    return content


def test_chapters_in_the_order_of_the_spine_with_their_headings():
    content = read({"b.xhtml": page("<h1>Zwei</h1><p>später</p>"), "a.xhtml": page("<h2>Eins</h2><p>früher</p>")})
    assert content.text == "Zwei\n\nspäter\n\nEins\n\nfrüher"
    assert [(h.text, h.level) for h in content.headings] == [("Zwei", 1), ("Eins", 2)]
    assert (content.title, content.pages, content.warnings) == ("A book", (), ())


def test_the_table_of_contents_is_not_repeated_and_names_what_has_no_heading():
    nav = page(
        '<nav><ol><li><a href="a.xhtml#x">The  First Day</a></li><li><a href="b.xhtml">Night</a></li></ol></nav>'
    )
    chapters = {
        "a.xhtml": page('<p class="title">THE FIRST</p><p>DAY</p>').replace("</p><p>", "</p>\n<p>"),
        "b.xhtml": page("<p>Nightfall came.</p>"),
        "c.xhtml": page("<p>no label</p>"),
    }
    content = read(chapters, nav=nav)
    assert content.text == "THE FIRST\n\nDAY\n\nNightfall came.\n\nno label"
    assert [h.text for h in content.headings] == ["THE FIRST\n\nDAY"]


def test_the_older_table_of_contents():
    ncx = (
        '<!DOCTYPE ncx PUBLIC "-//NISO//DTD ncx 2005-1//EN" "http://localhost/ncx.dtd"><ncx><navMap>'
        '<navPoint><navLabel><text>One</text></navLabel><content src="a%20b.xhtml"/>'
        '<navPoint><navLabel><text>Inner</text></navLabel><content src="a%20b.xhtml#i"/></navPoint>'
        "</navPoint></navMap></ncx>"
    )
    content = read({"a b.xhtml": page("<p>One</p><p>text</p>")}, ncx=ncx)
    assert [(h.text, h.level, h.start, h.end) for h in content.headings] == [("One", 1, 0, 3)]


def test_notes_and_headers_are_a_part_of_a_book():
    body = "<header><h1>Chapter</h1></header><p>text</p><aside><p>a note</p></aside><footer>the end</footer>"
    assert read({"a.xhtml": page(body)}).text == "Chapter\n\ntext\n\na note\n\nthe end"


def test_elements_closed_in_their_own_tag_swallow_nothing():
    head = '<title/><script src="x.js"/><style/>'
    body = (
        '<a id="p1"/><p>one<br/>two<span class="x"/></p><div/><p>three &amp; <i/>four&#160;</p>'
        '<iframe src="x"/><p>five</p>'
    )
    assert read({"a.xhtml": page(body, head)}).text == "one\ntwo\n\nthree & four\u00a0\n\nfive"


@pytest.mark.parametrize("encoding", ["utf-16", "iso-8859-1", "utf-8-sig"])
def test_chapters_in_other_encodings(encoding):
    declared = page("<p>früher</p>").replace("UTF-8", encoding.removesuffix("-sig"))
    assert read({"a.xhtml": declared.encode(encoding)}).text == "früher"


def test_pictures_and_missing_chapters():
    content = read(
        {"cover.xhtml": page('<svg><image/></svg><img src="x.png"/>'), "gone.xhtml": None, "a.xhtml": page("<p>x</p>")}
    )
    assert content.text == "x"
    assert content.warnings == ("chapter missing from the file: OPS/gone.xhtml",)
    with pytest.raises(ReadError, match="no chapter with text"):
        read_epub(epub({"cover.xhtml": page('<img src="x.png"/>')}))


def encryption(algorithm, target):
    return (
        '<encryption xmlns="urn:oasis:names:tc:opendocument:xmlns:container" xmlns:enc="http://www.w3.org/2001/04/xmlenc#">'
        f'<enc:EncryptedData><enc:EncryptionMethod Algorithm="{algorithm}"/><enc:CipherData>'
        f'<enc:CipherReference URI="{target}"/></enc:CipherData></enc:EncryptedData></encryption>'
    )


def test_fonts_may_be_obfuscated():
    parts = {
        "META-INF/encryption.xml": encryption("http://www.idpf.org/2008/embedding", "OPS/font.otf"),
        "OPS/font.otf": b"\x91",
    }
    assert read({"a.xhtml": page("<p>x</p>")}, parts=parts).text == "x"


@pytest.mark.parametrize(
    ("extra", "kind"),
    [
        ("META-INF/rights.xml", "Adobe ADEPT"),
        ("META-INF/license.lcpl", "Readium LCP"),
        ("META-INF/sinf.xml", "Apple FairPlay"),
        ("META-INF/other", "unknown kind"),
    ],
)
def test_protected_books_are_refused_by_name(extra, kind):
    parts = {
        "META-INF/encryption.xml": encryption("http://www.w3.org/2001/04/xmlenc#aes128-cbc", "OPS/a.xhtml"),
        extra: b"...",
    }
    with pytest.raises(ReadError, match=rf"protected by DRM \({kind}\)"):
        read_epub(epub({"a.xhtml": b"\x91" * 100}, parts=parts))


def test_entities_in_the_package_are_refused():
    with pytest.raises(ReadError, match="entities"):
        read_epub(epub({"a.xhtml": page("x")}, package='<!DOCTYPE p [<!ENTITY e "x">]><package>&e;</package>'))
