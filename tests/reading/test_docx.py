import io

import docx as python_docx
import pytest
from docx.enum.section import WD_SECTION

from m3rag.errors import ReadError
from m3rag.reading.docx import read_docx

from .packages import WORD, chart, docx, p, rels, spans_hold, zipped


def saved(document):
    buffer = io.BytesIO()
    document.save(buffer)
    return buffer.getvalue()


def text_of(body, **options):
    content = read_docx(docx(body, **options))
    spans_hold(content)
    return content.text


def part(root, inner):
    return f'<?xml version="1.0"?><w:{root} {WORD}>{inner}</w:{root}>'


def test_paragraphs_headings_and_lists_of_a_document_by_python_docx():
    document = python_docx.Document()
    document.core_properties.title = "Rivers of the North"
    document.add_heading("Rivers", 0)
    document.add_heading("The Elbe", 1)
    document.add_paragraph("It flows\tinto the sea.\nAt Cuxhaven.")
    document.add_heading("Its tributaries", 2)
    for name in ("Havel", "Saale"):
        document.add_paragraph(name, style="List Bullet")
    document.add_paragraph("")
    document.add_paragraph("That is all.")
    content = read_docx(saved(document))
    assert content.text == (
        "Rivers\n\nThe Elbe\n\nIt flows into the sea.\nAt Cuxhaven.\n\nIts tributaries\n\nHavel\nSaale\n\nThat is all."
    )
    assert [(h.text, h.level) for h in content.headings] == [("Rivers", 1), ("The Elbe", 1), ("Its tributaries", 2)]
    spans_hold(content)
    assert content.title == "Rivers of the North"
    assert content.pages == content.warnings == ()


def test_tables_stand_in_their_place():
    document = python_docx.Document()
    document.add_paragraph("before")
    table = document.add_table(rows=2, cols=3)
    for row, values in zip(table.rows, (("Name", "Born", "Note"), ("Ada", "1815", "")), strict=True):
        for cell, value in zip(row.cells, values, strict=True):
            cell.text = value
    table.cell(1, 2).text = "two\nlines"
    document.add_paragraph("after")
    assert read_docx(saved(document)).text == "before\n\nName | Born | Note\nAda | 1815 | two lines\n\nafter"


def test_a_table_in_a_table_stands_on_lines_of_its_own():
    document = python_docx.Document()
    outer = document.add_table(rows=2, cols=2)
    outer.cell(0, 0).text, outer.cell(0, 1).text = "a", "b"
    outer.cell(1, 0).text = "left"
    inner = outer.cell(1, 1).add_table(rows=1, cols=2)
    inner.cell(0, 0).text, inner.cell(0, 1).text = "c", "d"
    assert read_docx(saved(document)).text == "a | b\n\nleft\n\nc | d"


def test_page_headers_stand_before_their_section_and_footers_after_it_each_text_once():
    document = python_docx.Document()
    document.sections[0].header.paragraphs[0].text = "Annual report"
    document.sections[0].footer.paragraphs[0].text = "ACME Ltd."
    document.add_paragraph("first")
    second = document.add_section(WD_SECTION.NEW_PAGE)
    second.header.is_linked_to_previous = False
    second.header.paragraphs[0].text = "Appendix"
    second.footer.is_linked_to_previous = False
    second.footer.paragraphs[0].text = "ACME Ltd."
    document.add_paragraph("second")
    assert read_docx(saved(document)).text == "Annual report\n\nfirst\n\nACME Ltd.\n\nAppendix\n\nsecond"


def test_headers_of_first_and_even_pages_count_where_they_are_shown():
    names = ("default", "first", "even")
    references = "".join(f'<w:headerReference w:type="{n}" r:id="rId{i}"/>' for i, n in enumerate(names, 1))
    options = {
        "parts": {f"word/h{n}.xml": part("hdr", p(f"header {n}")) for n in names},
        "targets": [("header", f"h{n}.xml") for n in names],
    }
    assert text_of(p("x") + f"<w:sectPr>{references}</w:sectPr>", **options) == "header default\n\nx"
    options["parts"]["word/settings.xml"] = part("settings", "<w:evenAndOddHeaders/>")
    options["targets"].append(("settings", "settings.xml"))
    shown = text_of(p("x") + f"<w:sectPr>{references}<w:titlePg/></w:sectPr>", **options)
    assert shown.split("\n\n") == ["header default", "header first", "header even", "x"]


def test_page_numbers_are_no_text():
    complex_field = (
        '<w:r><w:fldChar w:fldCharType="begin"/></w:r><w:r><w:instrText> PAGE </w:instrText></w:r>'
        '<w:r><w:fldChar w:fldCharType="separate"/></w:r><w:r><w:t>7</w:t></w:r><w:r>'
        '<w:fldChar w:fldCharType="end"/></w:r>'
    )
    simple = '<w:fldSimple w:instr="NUMPAGES"><w:r><w:t>9</w:t></w:r></w:fldSimple>'
    body = f"<w:p><w:r><w:t>page </w:t></w:r>{complex_field}<w:r><w:t> of </w:t></w:r>{simple}</w:p>"
    assert text_of(body) == "page of"
    shown = body.replace("PAGE", "REF x").replace("NUMREF x", "DATE")
    assert text_of(shown) == "page 7 of 9"
    # A field that never ends hides no more than its paragraph.
    assert text_of('<w:p><w:r><w:fldChar w:fldCharType="begin"/><w:t>lost</w:t></w:r></w:p>' + p("next")) == "next"
    unended = complex_field.replace('<w:fldChar w:fldCharType="end"/>', "")
    assert text_of(f"<w:p><w:r><w:t>p. </w:t></w:r>{unended}</w:p>" + p("next")) == "p.\n\nnext"


def test_tracked_insertions_are_in_and_deletions_out():
    body = (
        "<w:p><w:r><w:t>The </w:t></w:r><w:ins><w:r><w:t>new </w:t></w:r></w:ins>"
        "<w:del><w:r><w:delText>old </w:delText><w:t>older </w:t></w:r></w:del>"
        "<w:moveFrom><w:r><w:t>moved away </w:t></w:r></w:moveFrom><w:moveTo><w:r>"
        "<w:t>moved here</w:t></w:r></w:moveTo></w:p>"
    )
    assert text_of(body) == "The new moved here"
    joined = p("one half, ", properties="<w:rPr><w:del/></w:rPr>") + p("other half")
    assert text_of(joined) == "one half, other half"
    row = "<w:tr><w:trPr>{}</w:trPr><w:tc>" + p("a") + "</w:tc><w:tc>" + p("b") + "</w:tc></w:tr>"
    table = f"<w:tbl>{row.format('<w:ins/>')}{row.format('<w:del/>').replace('>a<', '>gone<')}</w:tbl>"
    assert text_of(table) == "a | b"


def test_hidden_text_is_left_out_and_told():
    styles = part(
        "styles",
        '<w:style w:styleId="Ghost"><w:rPr><w:vanish/></w:rPr></w:style>'
        '<w:style w:styleId="Child"><w:basedOn w:val="Ghost"/></w:style>',
    )
    body = (
        p("seen", run='<w:vanish w:val="0"/>')
        + p("hidden", run="<w:vanish/>")
        + p("by style", run='<w:rStyle w:val="Child"/>')
        + p("whole", properties='<w:pStyle w:val="Ghost"/>')
    )
    content = read_docx(docx(body, parts={"word/styles.xml": styles}, targets=[("styles", "styles.xml")]))
    assert content.text == "seen"
    assert content.warnings == ("left out 3 hidden passages",)


def test_headings_by_outline_level_name_and_inheritance():
    styles = part(
        "styles",
        '<w:style w:styleId="berschrift1"><w:name w:val="heading 1"/></w:style>'
        '<w:style w:styleId="Own"><w:name w:val="Clause"/><w:basedOn w:val="berschrift1"/></w:style>'
        '<w:style w:styleId="Loop"><w:basedOn w:val="Loop"/></w:style>'
        '<w:style w:styleId="Level"><w:pPr><w:outlineLvl w:val="2"/></w:pPr></w:style>'
        '<w:style w:styleId="Body"><w:basedOn w:val="berschrift1"/><w:pPr><w:outlineLvl w:val="9"/></w:pPr></w:style>',
    )
    names = ("berschrift1", "Own", "Loop", "Level", "Body", "Unknown")
    body = "".join(p(name, properties=f'<w:pStyle w:val="{name}"/>') for name in names)
    body += p("direct", properties='<w:outlineLvl w:val="4"/>')
    content = read_docx(docx(body, parts={"word/styles.xml": styles}, targets=[("styles", "styles.xml")]))
    spans_hold(content)
    assert [(h.text, h.level) for h in content.headings] == [
        ("berschrift1", 1), ("Own", 1), ("Level", 3), ("direct", 5),
    ]  # fmt: skip


def test_text_boxes_follow_their_paragraph_once():
    box = "<w:txbxContent>" + p("in the box") + "</w:txbxContent>"
    both = (
        f"<mc:AlternateContent><mc:Choice Requires='wps'><wps:txbx>{box}</wps:txbx></mc:Choice>"
        f"<mc:Fallback><w:pict><v:textbox>{box}</v:textbox></w:pict></mc:Fallback></mc:AlternateContent>"
    )
    assert text_of(f"<w:p><w:r>{both}</w:r><w:r><w:t>anchor</w:t></w:r></w:p>") == "anchor\n\nin the box"
    fallback = both.replace(f"<wps:txbx>{box}</wps:txbx>", "")
    assert text_of(f"<w:p><w:r>{fallback}</w:r></w:p>") == "in the box"


def test_notes_follow_the_paragraph_or_the_table_that_cites_them():
    notes = part("footnotes", f'<w:footnote w:id="2">{p("A note.")}</w:footnote>')
    ends = part("endnotes", f'<w:endnote w:id="2">{p("An end note.")}</w:endnote>')
    options = {
        "parts": {"word/footnotes.xml": notes, "word/endnotes.xml": ends},
        "targets": [("footnotes", "footnotes.xml"), ("endnotes", "endnotes.xml")],
    }
    cited = (
        '<w:p><w:r><w:t>Cited</w:t></w:r><w:r><w:footnoteReference w:id="2"/><w:endnoteReference w:id="2"/></w:r></w:p>'
    )
    assert text_of(cited + p("next"), **options) == "Cited\n\nA note.\n\nAn end note.\n\nnext"
    table = f"<w:tbl><w:tr><w:tc>{cited}</w:tc><w:tc>{p('b')}</w:tc></w:tr></w:tbl>"
    assert text_of(table, **options) == "Cited | b\n\nA note.\n\nAn end note."


def test_controls_links_symbols_formulas_and_ruby():
    body = (
        f"<w:sdt><w:sdtPr><w:t>no</w:t></w:sdtPr><w:sdtContent>{p('control')}</w:sdtContent></w:sdt>"
        "<w:p><w:hyperlink><w:r><w:t>link</w:t></w:r></w:hyperlink><w:r><w:noBreakHyphen/><w:sym w:char='03B1'/>"
        "<w:sym w:char='F0B7'/></w:r></w:p>"
        "<w:p><w:r><w:ruby><w:rt><w:r><w:t>とう</w:t></w:r></w:rt><w:rubyBase><w:r><w:t>東</w:t></w:r>"
        "</w:rubyBase></w:ruby>"
        "<w:t>京</w:t></w:r></w:p>"
        '<w:p><m:oMath xmlns:m="urn:m"><m:r><m:t>E=mc</m:t></m:r></m:oMath></w:p>'
    )
    assert text_of(body) == "control\n\nlink\u2011α\n\n東京\n\nE=mc"


def test_smart_art_is_text_and_comments_are_told():
    data = (
        '<d:dataModel xmlns:d="urn:d" xmlns:a="urn:a"><d:ptLst><d:pt><a:t>Plan</a:t></d:pt><d:pt/>'
        "<d:pt><a:t>Do</a:t></d:pt></d:ptLst></d:dataModel>"
    )
    comments = part("comments", f"<w:comment>{p('really?')}</w:comment>")
    content = read_docx(
        docx(
            "<w:p><w:r><w:drawing><dgm:relIds r:dm='rId1'/></w:drawing></w:r></w:p>",
            parts={"word/diagrams/data1.xml": data, "word/comments.xml": comments},
            targets=[("diagramData", "diagrams/data1.xml"), ("comments", "comments.xml")],
        )
    )
    assert content.text == "Plan\nDo"
    assert content.warnings == ("1 comment left out: they are not part of the text",)


def test_a_strict_document_is_read():
    parts = {
        "_rels/.rels": (
            "<Relationships>"
            '<Relationship Id="r" Type="http://purl.oclc.org/ooxml/officeDocument/relationships/officeDocument" '
            'Target="/word/document.xml"/></Relationships>'
        ),
        "word/document.xml": (
            '<w:document xmlns:w="http://purl.oclc.org/ooxml/wordprocessingml/main"><w:body><w:p><w:r>'
            "<w:t>strict</w:t></w:r></w:p></w:body></w:document>"
        ),
    }
    assert read_docx(zipped(parts)).text == "strict"


def test_dangling_references_are_passed_over():
    body = (
        p("x")
        + '<w:sectPr><w:headerReference w:type="default" r:id="rId1"/><w:footerReference r:id="rId9"/></w:sectPr>'
    )
    assert text_of(body, targets=[("header", "../NULL"), ("styles", "gone.xml"), ("comments", "gone.xml")]) == "x"


def test_a_program_generated_title_is_none():
    document = python_docx.Document()
    document.core_properties.title = "Microsoft Word - report.doc"
    document.add_paragraph("x")
    assert read_docx(saved(document)).title == ""


def test_what_is_not_safe_or_no_document_is_refused():
    with pytest.raises(ReadError, match="declares a document type or entities"):
        read_docx(docx(p("&e;"), declaration='<!DOCTYPE w [<!ENTITY e SYSTEM "file:///etc/passwd">]>'))
    with pytest.raises(ReadError, match="no main part"):
        read_docx(zipped({"a.txt": "text"}))
    with pytest.raises(ReadError, match=r"word/document\.xml is not well-formed"):
        read_docx(docx("<w:p>"))


def raised(text, how):
    return f'<w:r><w:rPr><w:vertAlign w:val="{how}"/></w:rPr><w:t>{text}</w:t></w:r>'


def test_raised_and_lowered_digits_are_no_part_of_the_number_beside_them():
    word = "<w:r><w:t>{}</w:t></w:r>"
    runs = word.format("10") + raised(6, "superscript") + word.format(" CO") + raised(2, "subscript")
    assert text_of(f"<w:p>{runs}{word.format(' 2')}{raised('nd', 'superscript')}</w:p>") == "10⁶ CO₂ 2nd"
    style = '<w:style w:styleId="Up"><w:rPr><w:vertAlign w:val="superscript"/></w:rPr></w:style>'
    body = f'<w:p>{word.format("m")}<w:r><w:rPr><w:rStyle w:val="Up"/></w:rPr><w:t>2</w:t></w:r></w:p>'
    options = {"parts": {"word/styles.xml": part("styles", style)}, "targets": [("styles", "styles.xml")]}
    assert text_of(body, **options) == "m²"


def test_a_symbol_without_a_code_costs_no_more_than_itself():
    assert text_of('<w:p><w:r><w:t>good</w:t><w:sym w:char="zz"/><w:sym w:char="2022"/></w:r></w:p>') == "good•"


def cell(text, merge=None, span=1):
    value = {"restart": '<w:vMerge w:val="restart"/>', "goes on": "<w:vMerge/>", None: ""}[merge]
    return f'<w:tc><w:tcPr><w:gridSpan w:val="{span}"/>{value}</w:tcPr>{p(text)}</w:tc>'


def table(*rows):
    return f"<w:tbl>{''.join(f'<w:tr>{row}</w:tr>' for row in rows)}</w:tbl>"


def test_a_value_merged_over_rows_stands_in_each_of_them():
    first = cell("wide", span=2) + cell("North", "restart") + cell("Oslo")
    second = cell("a") + cell("b") + cell("", "goes on") + cell("Turku")
    third = cell("c") + cell("d") + cell("South") + cell("Rome")
    assert text_of(table(first, second, third)) == "wide | North | Oslo\na | b | North | Turku\nc | d | South | Rome"


def test_a_text_merged_over_rows_stands_once():
    rows = [cell("long " * 99, "restart") + cell("0"), *(cell("", "goes on") + cell(str(n)) for n in range(1, 9))]
    text = text_of(table(*rows))
    assert text.count("long") == 99
    assert text.endswith("| 8")


def test_charts_follow_their_paragraph_and_descriptions_of_pictures_are_told():
    drawing = "<w:drawing><w:docPr descr='A tower'/></w:drawing><w:drawing><c:chart r:id='rId1'/></w:drawing>"
    body = f"<w:p><w:r><w:t>Before</w:t>{drawing}</w:r></w:p>" + p("after")
    options = {"parts": {"word/chart.xml": chart("Sales", Revenue={"North": 5})}, "targets": [("chart", "chart.xml")]}
    content = read_docx(docx(body, **options))
    assert content.text == "Before\n\nSales\nNorth | Revenue: 5\n\nafter"
    assert content.warnings == ("the description of 1 picture left out",)


def test_raised_runs_beside_each_other_are_one():
    def up(*texts):
        return "".join(raised(text, "superscript") for text in texts)

    word = "<w:r><w:t>{}</w:t></w:r>"
    body = f"<w:p>{word.format('July 2')}{up('n', 'd')}{word.format(', fact')}{up('[', '1', ']')}"
    body += f"{word.format(', 10')}{up('1', '2')}{raised(3, 'subscript')}{word.format(' 1')}{up('1/2')}</w:p>"
    assert text_of(body) == "July 2nd, fact[1], 10¹²₃ 1 1/2"


def test_a_cell_that_goes_on_keeps_a_text_of_its_own():
    rows = cell("North", "restart") + cell("a"), cell("own", "goes on") + cell("b"), cell("", "goes on") + cell("c")
    assert text_of(table(*rows)) == "North | a\nown | b\nNorth | c"


def test_a_span_without_end_is_none():
    assert text_of(table(cell("a", span="9" * 5_000) + cell("b"))) == "a | b"


def test_a_chart_named_many_times_is_read_once():
    body = "<w:p><w:r><w:drawing><c:chart r:id='rId1'/></w:drawing></w:r></w:p>" * 9
    parts = {
        "word/chart.xml": chart("Sales", Revenue={"North": 5}),
        "word/header.xml": part("hdr", body),
        "word/_rels/header.xml.rels": rels(("chart", "chart.xml")),
    }
    options = {"parts": parts, "targets": [("chart", "chart.xml"), ("header", "header.xml")]}
    assert text_of(body, **options) == "Sales\nNorth | Revenue: 5"
    section = "<w:p><w:pPr><w:sectPr><w:headerReference r:id='rId2'/></w:sectPr></w:pPr></w:p>"
    assert text_of(section * 2 + body, **options) == "Sales\nNorth | Revenue: 5"
