import io

import pptx
import pytest
from lxml import etree
from pptx.chart.data import CategoryChartData
from pptx.enum.chart import XL_CHART_TYPE
from pptx.util import Inches

from m3rag.errors import ReadError
from m3rag.reading.pptx import read_pptx
from m3rag.types import Page

from .packages import rels, spans_hold, zipped

TITLE_ONLY, TITLE_AND_CONTENT, BLANK = 5, 1, 6


def saved(deck):
    buffer = io.BytesIO()
    deck.save(buffer)
    return buffer.getvalue()


def read(deck):
    content = read_pptx(saved(deck))
    spans_hold(content)
    return content


def test_a_slide_is_a_page_with_its_title_as_heading_and_its_notes():
    deck = pptx.Presentation()
    deck.core_properties.title = "Whales"
    first = deck.slides.add_slide(deck.slide_layouts[TITLE_AND_CONTENT])
    first.shapes.title.text = "Blue\vwhales"
    first.placeholders[1].text = "They sing\nThey dive"
    first.notes_slide.notes_text_frame.text = "Play the recording."
    deck.slides.add_slide(deck.slide_layouts[BLANK])
    third = deck.slides.add_slide(deck.slide_layouts[TITLE_ONLY])
    third.shapes.title.text = "Sizes"
    content = read(deck)
    assert content.text == "Blue whales\n\nThey sing\nThey dive\n\nPlay the recording.\n\nSizes"
    assert content.pages == (Page(1, 0, 53), Page(2, 53, 53), Page(3, 55, 60))
    assert [(h.text, h.level) for h in content.headings] == [("Blue whales", 1), ("Sizes", 1)]
    assert (content.title, content.warnings) == ("Whales", ())


def test_tables_groups_and_boxes():
    deck = pptx.Presentation()
    slide = deck.slides.add_slide(deck.slide_layouts[TITLE_ONLY])
    table = slide.shapes.add_table(2, 2, 0, 0, Inches(3), Inches(1)).table
    for at, text in enumerate(("Name", "Length", "Orca", "8 m")):
        table.cell(at // 2, at % 2).text = text
    group = slide.shapes.add_group_shape()
    group.shapes.add_textbox(0, 0, 9, 9).text_frame.text = "in a group"
    slide.shapes.title.text = "Last in the file?"
    slide.shapes._spTree.append(slide.shapes.title._element)
    assert read(deck).text == "Last in the file?\n\nName | Length\nOrca | 8 m\n\nin a group"


def test_hidden_slides_and_shapes_are_left_out_and_slides_are_named():
    deck = pptx.Presentation()
    for text in ("one", "two", "three"):
        deck.slides.add_slide(deck.slide_layouts[TITLE_ONLY]).shapes.title.text = text
    deck.slides[1]._element.set("show", "0")
    box = deck.slides[2].shapes.add_textbox(0, 0, 9, 9)
    box.text_frame.text = "secret"
    box._element.nvSpPr.cNvPr.set("hidden", "1")
    content = read(deck)
    assert content.text == "one\n\nthree"
    assert [page.number for page in content.pages] == [1, 2, 3]
    assert content.warnings == ("slide 2 hidden from the show and left out",)


SLIDE = (
    '<p:sld xmlns:p="urn:p" xmlns:a="urn:a" xmlns:r="urn:r" xmlns:d="urn:d" xmlns:mc="urn:mc"><p:cSld><p:spTree>{}'
    "</p:spTree></p:cSld></p:sld>"
)


def shape(text, kind=""):
    placeholder = f'<p:ph type="{kind}"/>' if kind else ""
    return (
        f"<p:sp><p:nvSpPr><p:cNvPr/><p:nvPr>{placeholder}</p:nvPr></p:nvSpPr>"
        f"<p:txBody><a:p><a:r><a:t>{text}</a:t></a:r></a:p></p:txBody></p:sp>"
    )


def package(*slides, targets=()):
    listed = "".join(f'<p:sldId id="{256 + n}" r:id="rId{n}"/>' for n in range(1, len(slides) + 1))
    return {
        "_rels/.rels": rels(("officeDocument", "ppt/presentation.xml")),
        "ppt/presentation.xml": (
            f'<p:presentation xmlns:p="urn:p" xmlns:r="urn:r"><p:sldIdLst>{listed}</p:sldIdLst></p:presentation>'
        ),
        "ppt/_rels/presentation.xml.rels": rels(*(("slide", f"slides/s{n}.xml") for n in range(1, len(slides) + 1))),
        **{f"ppt/slides/s{n}.xml": SLIDE.format(s) for n, s in enumerate(slides, 1) if s is not None},
        "ppt/slides/_rels/s1.xml.rels": rels(*targets),
    }


def test_numbers_and_dates_are_no_text_and_a_footer_is_read_once():
    slide = shape("7", "sldNum") + shape("1 May", "dt") + shape("ACME", "ftr") + shape("body")
    assert read_pptx(zipped(package(slide, slide))).text == "ACME\n\nbody\n\nbody"


def test_smart_art_and_alternatives():
    art = (
        '<p:graphicFrame><a:graphic><a:graphicData><d:relIds r:dm="rId1"/></a:graphicData></a:graphic></p:graphicFrame>'
    )
    either = (
        f"<mc:AlternateContent><mc:Choice>{shape('new')}</mc:Choice>"
        f"<mc:Fallback>{shape('old')}</mc:Fallback></mc:AlternateContent>"
    )
    parts = package(art + either, targets=[("diagramData", "../diagrams/data1.xml")])
    parts["ppt/diagrams/data1.xml"] = "<m><pt><t>Plan</t></pt><pt><t>Do</t></pt></m>"
    assert read_pptx(zipped(parts)).text == "Plan\nDo\n\nnew"


def test_a_missing_slide_is_named():
    content = read_pptx(zipped(package(shape("one"), None, shape("three"))))
    assert content.text == "one\n\nthree"
    assert content.pages[1] == Page(2, 3, 3)
    assert content.warnings == ("slide 2 missing from the file",)


def test_declarations_are_refused():
    parts = package(shape("&e;"))
    parts["ppt/slides/s1.xml"] = '<!DOCTYPE p [<!ENTITY e "x">]>' + parts["ppt/slides/s1.xml"]
    with pytest.raises(ReadError, match="declares a document type"):
        read_pptx(zipped(parts))


def test_charts_equations_and_raised_digits():
    deck = pptx.Presentation()
    slide = deck.slides.add_slide(deck.slide_layouts[BLANK])
    data = CategoryChartData()
    data.categories = ["North", "South"]
    data.add_series("Revenue", (19.2, 21.4))
    chart = slide.shapes.add_chart(XL_CHART_TYPE.COLUMN_CLUSTERED, 0, 0, Inches(3), Inches(3), data)
    chart.chart.chart_title.text_frame.text = "Sales"
    chart._element.nvGraphicFramePr.cNvPr.set("descr", "Columns")
    paragraph = slide.shapes.add_textbox(0, 0, 9, 9).text_frame.paragraphs[0]
    for text, baseline in (("10", ""), ("6", "30000"), (" CO", "0"), ("2", "-25000")):
        run = paragraph.add_run()
        run.text = text
        run.font._element.set("baseline", baseline)
    maths = "http://schemas.openxmlformats.org/officeDocument/2006/math"
    half = "<m:num><m:r><m:t>1</m:t></m:r></m:num><m:den><m:r><m:t>25</m:t></m:r></m:den>"
    paragraph._p.append(etree.fromstring(f'<m:f xmlns:m="{maths}">{half}</m:f>'))
    content = read(deck)
    assert content.text == "Sales\nNorth | Revenue: 19.2\nSouth | Revenue: 21.4\n\n10⁶ CO₂ 1/25"
    assert content.warnings == ("the description of 1 picture left out",)


def test_raised_runs_beside_each_other_are_one_and_a_chart_is_read_once():
    def run(text, baseline=""):
        return f"<a:r><a:rPr baseline='{baseline}'/><a:t>{text}</a:t></a:r>"

    runs = run("July 2") + run("n", "30000") + run("d", "30000") + run(", a") + run("[", "3") + run("1", "3")
    runs += run("]", "3")
    frame = '<p:graphicFrame><a:graphic><a:graphicData><c:chart xmlns:c="c" r:id="rId1"/></a:graphicData></a:graphic>'
    slide = f"<p:sp><p:txBody><a:p>{runs}</a:p></p:txBody></p:sp>" + f"{frame}</p:graphicFrame>" * 9
    parts = package(slide, targets=[("chart", "../charts/c.xml")])
    parts["ppt/charts/c.xml"] = "<c><title><t>Sales</t></title></c>"
    assert read_pptx(zipped(parts)).text == "July 2nd, a[1]\n\nSales"
