import pytest

from m3rag.errors import ReadError
from m3rag.reading import odt_sheets
from m3rag.reading.odt import read_odf

from .packages import OPEN, odf, spans_hold, zipped


def read(body, **options):
    content = read_odf(odf(body, **options))
    spans_hold(content)
    return content


def style(name, properties="", parent=""):
    return f'<style:style style:name="{name}" style:parent-style-name="{parent}">{properties}</style:style>'


HIDING = '<style:text-properties text:display="none"/>'


def test_headings_paragraphs_and_lists():
    meta = (
        '<office:document-meta xmlns:office="o" xmlns:dc="d"><office:meta>'
        "<dc:title>Rivers</dc:title></office:meta></office:document-meta>"
    )
    content = read(
        '<text:p text:style-name="P1">Rivers of the North</text:p><text:h text:outline-level="2">The Elbe</text:h>'
        "<text:p>It<text:s text:c='2'/>flows<text:tab/>into\n the <text:span>sea</text:span>."
        "<text:line-break/>At Cuxhaven.</text:p>"
        "<text:list><text:list-item><text:p>Havel</text:p><text:list><text:list-item>"
        "<text:p>Spree</text:p></text:list-item></text:list>"
        "</text:list-item><text:list-item><text:p>Saale</text:p></text:list-item></text:list>"
        "<text:p/><text:p>End</text:p>",
        automatic=style("P1", parent="Title"),
        styles=f"<office:styles>{style('Title')}</office:styles>",
        parts={"meta.xml": meta},
    )
    assert content.text == (
        "Rivers of the North\n\nThe Elbe\n\nIt flows into the sea.\nAt Cuxhaven.\n\nHavel\nSpree\nSaale\n\nEnd"
    )
    assert [(h.text, h.level) for h in content.headings] == [("Rivers of the North", 1), ("The Elbe", 2)]
    assert (content.title, content.warnings) == ("Rivers", ())


def test_tracked_deletions_remarks_and_readings_are_out():
    content = read(
        "<text:tracked-changes><text:changed-region><text:deletion><text:p>deleted</text:p></text:deletion>"
        "</text:changed-region></text:tracked-changes>"
        "<text:p>kept <text:change-start/>inserted<text:change-end/><text:change/>"
        "<office:annotation><text:p>remark</text:p></office:annotation>"
        " <text:ruby><text:ruby-base>東</text:ruby-base><text:ruby-text>とう</text:ruby-text></text:ruby>京</text:p>"
    )
    assert content.text == "kept inserted 東京"


def test_hidden_text_is_left_out_and_told():
    content = read(
        '<text:p>seen <text:span text:style-name="T2">hidden</text:span></text:p>'
        '<text:section text:display="none"><text:p>hidden</text:p></text:section>'
        '<text:p text:style-name="T1">hidden</text:p>',
        automatic=style("T1", HIDING) + style("T2", parent="T1") + style("Loop", parent="Loop"),
    )
    assert content.text == "seen"
    assert content.warnings == ("left out 3 hidden passages",)


def test_tables_notes_and_boxes_in_their_place():
    cell = "<table:table-cell><text:p>{}</text:p></table:table-cell>"
    note = (
        "<text:note><text:note-citation>1</text:note-citation><text:note-body>"
        "<text:p>A note.</text:p></text:note-body></text:note>"
    )
    rows = (
        f"<table:table-header-rows>"
        f"<table:table-row>{cell.format('Name')}{cell.format('Born')}</table:table-row>"
        f"</table:table-header-rows>"
        f"<table:table-row>{cell.format('Ada' + note)}<table:covered-table-cell/></table:table-row>"
        f"<table:table-row>{cell.format('left')}<table:table-cell><table:table>"
        f"<table:table-row>{cell.format('c')}{cell.format('d')}"
        "</table:table-row></table:table></table:table-cell></table:table-row>"
    )
    box = "<draw:frame><draw:text-box><text:p>boxed</text:p></draw:text-box></draw:frame>"
    content = read(f"<table:table>{rows}</table:table><text:p>text{note}{box}.</text:p>")
    assert content.text == "Name | Born\nAda |\n\nA note.\n\nleft\n\nc | d\n\ntext.\n\nboxed\n\nA note."


def test_page_headers_come_first_and_footers_last_once():
    page = (
        "<style:master-page><style:header><text:p>ACME</text:p></style:header><style:footer>"
        "<text:p>{}</text:p></style:footer></style:master-page>"
    )
    number = "Page <text:page-number>1</text:page-number>"
    content = read(
        "<text:p>body</text:p>",
        styles=(
            f"<office:master-styles>{page.format('Confidential')}{page.format(number)}{page.format('')}</office:master-styles>"
        ),
    )
    assert content.text == "ACME\n\nbody\n\nConfidential\n\nPage"


def test_slides_are_pages():
    frame = '<draw:frame presentation:class="{}"><draw:text-box><text:p>{}</text:p></draw:text-box></draw:frame>'
    number = frame.format("page-number", "1")
    slides = (
        f"<draw:page>{frame.format('outline', 'They sing')}{frame.format('title', 'Whales')}{number}"
        f"<presentation:notes>{frame.format('notes', 'Play it.')}{number}</presentation:notes></draw:page>"
        f"<draw:page draw:style-name='dp2'>{frame.format('title', 'Secret')}</draw:page>"
        "<draw:page><draw:custom-shape><text:p>shape</text:p></draw:custom-shape></draw:page>"
    )
    hidden = style("dp2", '<style:drawing-page-properties presentation:visibility="hidden"/>')
    content = read(slides, kind="presentation", automatic=hidden)
    assert content.text == "Whales\n\nThey sing\n\nPlay it.\n\nshape"
    assert [(page.number, page.start, page.end) for page in content.pages] == [(1, 0, 27), (2, 27, 27), (3, 29, 34)]
    assert [(h.text, h.level) for h in content.headings] == [("Whales", 1)]
    assert content.warnings == ("slide 2 hidden from the show and left out",)


def cell(text, kind="string", more=""):
    return f'<table:table-cell office:value-type="{kind}" {more}><text:p>{text}</text:p></table:table-cell>'


def sheet(rows, name="Sales", more=""):
    return f'<table:table table:name="{name}" {more}>{rows}</table:table>'


def row(*cells, more=""):
    return f"<table:table-row {more}>{''.join(cells)}</table:table-row>"


def test_sheets_are_records():
    spanned, twice = 'table:number-rows-spanned="2"', 'table:number-columns-repeated="2"'
    covered = "<table:covered-table-cell/>"
    first, second = 'office:date-value="2024-05-01T00:00:00"', 'office:date-value="2024-05-02"'
    far = '<table:table-cell table:number-columns-repeated="16000"/>'
    rows = (
        row(cell("Region"), cell("Day"), cell("Sales"))
        + row(cell("North", more=spanned), cell("1.5.24", "date", first), cell("25 %", "percentage"))
        + row(covered, cell("2.5.24", "date", second), cell("9", "float"), far)
        + row("<table:table-cell/>", more='table:number-rows-repeated="1000000"')
        + row(cell("x", more=twice), more='table:number-rows-repeated="2"')
    )
    hidden = style("ta2", '<style:table-properties table:display="false"/>')
    body = sheet(rows) + sheet(row(cell("secret")), "Lookup", "table:style-name='ta2'")
    content = read(body, kind="spreadsheet", automatic=hidden)
    assert content.text.split("\n") == [
        "Sales", "", "Region | Day | Sales", "Region: North | Day: 2024-05-01 | Sales: 25 %",
        "Region: North | Day: 2024-05-02 | Sales: 9", "", "Region: x | Day: x", "Region: x | Day: x",
    ]  # fmt: skip
    assert [h.text for h in content.headings] == ["Sales"]
    assert content.warnings == ("hidden sheet left out: Lookup",)


def test_repeated_cells_are_bounded(monkeypatch):
    monkeypatch.setattr(odt_sheets, "MAX_CELLS", 100)
    many = cell("x", more='table:number-columns-repeated="16384"')
    rows = row(many, more='table:number-rows-repeated="1000000"')
    content = read(sheet(rows), kind="spreadsheet")
    assert content.text.count("x") <= 100
    assert "only 100 rows read" in content.warnings[0]


def test_what_is_encrypted_or_of_another_kind_is_refused():
    entry = f'<m:manifest xmlns:m="{OPEN}:manifest:1.0"><m:file-entry><m:encryption-data/></m:file-entry></m:manifest>'
    doctype = '<!DOCTYPE manifest:manifest PUBLIC "-//OpenOffice.org//DTD Manifest 1.0//EN" "Manifest.dtd">'
    with pytest.raises(ReadError, match="encrypted and needs a password"):
        read_odf(odf("", manifest=doctype + entry))
    with pytest.raises(ReadError, match="encrypted and needs a password"):
        read_odf(zipped({"mimetype": "x", "encrypted-package": b"..."}))
    with pytest.raises(ReadError, match="is an OpenDocument drawing"):
        read_odf(odf("", kind="drawing"))
    with pytest.raises(ReadError, match=r"content\.xml is missing"):
        read_odf(zipped({"mimetype": "application/vnd.oasis.opendocument.text"}))
    with pytest.raises(ReadError, match="declares a document type"):
        read_odf(odf("", parts={"content.xml": '<!DOCTYPE x [<!ENTITY e "x">]><x>&e;</x>'}))


def test_raised_and_lowered_digits_are_no_part_of_the_number_beside_them():
    styles = "".join(
        style(name, f'<style:text-properties style:text-position="{position}"/>')
        for name, position in (("T1", "super 58%"), ("T2", "-25% 58%"), ("T3", "0% 100%"))
    )
    body = "<text:p>10<text:span text:style-name='T1'>6</text:span> CO<text:span text:style-name='T2'>2</text:span> "
    assert read(body + "<text:span text:style-name='T3'>5</text:span></text:p>", automatic=styles).text == "10⁶ CO₂ 5"
    mark = "".join(f"<text:span text:style-name='T1'>{sign}</text:span>" for sign in "[1]")
    assert read(f"<text:p>a{mark}</text:p>", automatic=styles).text == "a[1]"


def test_what_is_no_text_is_told():
    hanging = "<office:annotation><text:p>really?</text:p></office:annotation><draw:frame><draw:object/><desc>A</desc>"
    content = read(f"<text:p>seen{hanging}</draw:frame></text:p>")
    assert content.text == "seen"
    assert content.warnings == (
        "1 comment left out: they are not part of the text",
        "the description of 1 picture left out",
        "1 embedded object (formula, chart) left out: export the file as PDF",
    )
