import io
from datetime import date, datetime, time, timedelta

import openpyxl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openpyxl.chart import BarChart, Reference
from openpyxl.comments import Comment
from openpyxl.styles import Font

from m3rag.errors import ReadError
from m3rag.reading import xlsx as module
from m3rag.reading import xlsx_records
from m3rag.reading.archive import Archive
from m3rag.reading.xlsx import _Reader, read_xlsx
from m3rag.reading.xlsx_book import read_book

from .packages import rels, spans_hold, zipped

STRICT = "http://purl.oclc.org/ooxml/spreadsheetml/main"


def saved(book):
    buffer = io.BytesIO()
    book.save(buffer)
    return buffer.getvalue()


def book_of(*rows, title="Sheet"):
    book = openpyxl.Workbook()
    book.active.title = title
    for values in rows:
        book.active.append(values)
    return book


def read(book):
    content = read_xlsx(saved(book))
    spans_hold(content)
    return content


def changed(data, name, old, new):
    archive = Archive(data)
    parts = {n: archive.read(n) for n in archive.names}
    assert old in parts[name]
    return zipped({**parts, name: parts[name].replace(old, new)})


def test_a_sheet_is_a_section_and_a_row_a_record():
    book = book_of(["Name", "Born"], ["Ada", 1815], ["Alan\nTuring", 1912], title="People")
    book.create_sheet("Empty")
    book.create_sheet("Towns").append(["Bonn"])
    book.properties.title = "Lists"
    content = read(book)
    assert content.text == (
        "People\n\nName | Born\nName: Ada | Born: 1815\nName: Alan Turing | Born: 1912\n\nTowns\n\nBonn"
    )
    assert [(h.text, h.level) for h in content.headings] == [("People", 1), ("Towns", 1)]
    assert (content.title, content.warnings, content.pages) == ("Lists", (), ())


def test_values_as_a_person_reads_them():
    book = book_of(
        [datetime(2024, 5, 1), datetime(2024, 5, 1, 13, 30), date(2024, 5, 2), time(9, 15), timedelta(hours=30)],
        [0.1 + 0.2, 3.0, 12345678901234, True, 0.25],
        ["#N/A", "text", 1e-9, None, None],
    )
    book.active["E2"].number_format = "0%"
    assert read(book).text.split("\n")[2:] == [
        "2024-05-01 | 2024-05-01T13:30:00 | 2024-05-02 | 09:15:00 | 1 day, 6:00:00",
        "0.3 | 3 | 12345678901234 | TRUE | 25%",
        "#N/A | text | 1e-09",
    ]


def test_merged_cells_stand_in_every_row():
    book = book_of(["Region", "Year", "Sales"], ["North", 2023, 1], [None, 2024, 2], ["South", 2023, 3])
    book.active.merge_cells("A2:A3")
    assert read(book).text.split("\n")[3:] == [
        "Region: North | Year: 2023 | Sales: 1",
        "Region: North | Year: 2024 | Sales: 2",
        "Region: South | Year: 2023 | Sales: 3",
    ]


def test_formulas_read_as_their_last_value_or_are_told():
    data = saved(book_of(["Net", "Gross"], [100, "=A2*1.19"], [200, "=A3*1.19"]))
    content = read_xlsx(data)
    assert content.text.endswith("100\n200")
    assert content.warnings == (
        "sheet Sheet: 2 formulas without a stored value read as empty; open and save the file in a spreadsheet program",
    )
    computed = changed(data, "xl/worksheets/sheet1.xml", b"<f>A2*1.19</f>", b"<f>A2*1.19</f><v>119</v></c><c>")
    content = read_xlsx(computed)
    assert "Net: 100 | Gross: 119" in content.text
    assert content.warnings[0].startswith("sheet Sheet: 1 formulas")


def test_hidden_sheets_are_left_out_by_name():
    book = book_of(["seen", "too"])
    book.create_sheet("Lookup").append(["secret"])
    book["Lookup"].sheet_state = "veryHidden"
    content = read(book)
    assert "secret" not in content.text
    assert content.warnings == ("hidden sheet left out: Lookup",)


def test_a_claimed_dimension_costs_nothing():
    data = saved(book_of(["a", "b"]))
    huge = changed(data, "xl/worksheets/sheet1.xml", b'<dimension ref="A1:B1"', b'<dimension ref="A1:XFD1048576"')
    assert read_xlsx(huge).text == "Sheet\n\na | b"


def test_sheets_are_bounded(monkeypatch):
    monkeypatch.setattr(module, "MAX_CELLS", 10)
    content = read(book_of(["a", "b"], *([n, n] for n in range(10))))
    assert content.text.endswith("a: 3 | b: 3")
    expected = xlsx_records.too_many("Sheet", 5)
    assert content.warnings == (expected,)
    assert "only 5 rows read" in expected


def test_a_far_cell_is_bounded():
    book = book_of(["a", "b"])
    book.active["A1048576"] = "bottom"
    book.active["XFD3"] = "right"
    content = read(book)
    assert "bottom" in content.text
    assert "right" in content.text


@pytest.mark.parametrize("name", ["xl/worksheets/sheet1.xml", "xl/styles.xml", "xl/workbook.xml"])
def test_declarations_are_refused_in_every_part(name):
    archive = Archive(saved(book_of(["a", "b"])))
    parts = {n: archive.read(n) for n in archive.names}
    with pytest.raises(ReadError, match="declares a document type"):
        read_xlsx(zipped({**parts, name: b'<!DOCTYPE x [<!ENTITY e "ha">]><x>&e;</x>'}))


def test_cells_without_references_and_texts_in_place():
    sheet = (
        f"<x:worksheet xmlns:x='{STRICT}'><x:sheetData><x:row><x:c t='inlineStr'><x:is><x:t>a</x:t><x:rPh><x:t>no</x:t>"
        "</x:rPh></x:is></x:c><x:c t='str'><x:f>1</x:f><x:v>b</x:v></x:c></x:row><x:row r='3'>"
        "<x:c t='d'><x:v>2024-05-01</x:v>"
        "</x:c><x:c t='s'><x:v>0</x:v></x:c><x:c r='C3' s='99'><x:v>1.50</x:v></x:c></x:row>"
        "</x:sheetData></x:worksheet>"
    )
    parts = {
        "_rels/.rels": rels(("officeDocument", "xl/workbook.xml")),
        "xl/workbook.xml": (
            f"<workbook xmlns='{STRICT}' xmlns:r='r'><sheets><sheet name='S' r:id='rId1'/></sheets></workbook>"
        ),
        "xl/_rels/workbook.xml.rels": rels(("worksheet", "worksheets/sheet1.xml"), ("sharedStrings", "shared.xml")),
        "xl/shared.xml": f"<sst xmlns='{STRICT}'><si><r><t>sha</t></r><r><t>red</t></r><rPh><t>no</t></rPh></si></sst>",
        "xl/worksheets/sheet1.xml": sheet,
    }
    assert read_xlsx(zipped(parts)).text == "S\n\na | b\n\na: 2024-05-01 | b: shared | 1.5"
    parts["xl/shared.xml"] = '<!DOCTYPE x [<!ENTITY e "ha">]><x>&e;</x>'
    with pytest.raises(ReadError, match="declares a document type"):
        read_xlsx(zipped(parts))
    parts["xl/shared.xml"] = "<sst/>"
    assert read_xlsx(zipped(parts)).text == "S\n\na | b\n\na: 2024-05-01 | 1.5"


def test_a_binary_workbook_is_refused_by_name():
    with pytest.raises(ReadError, match=r"binary workbook \(\.xlsb\)"):
        read_xlsx(zipped({"_rels/.rels": rels(("officeDocument", "xl/workbook.bin")), "xl/workbook.bin": b"\0"}))


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.lists(
            st.one_of(
                st.none(),
                st.booleans(),
                st.integers(-(10**12), 10**12),
                st.floats(-1e9, 1e9).filter(lambda x: abs(x) > 1e-9),
                st.datetimes(datetime(1901, 1, 1), datetime(2200, 1, 1)).map(lambda d: d.replace(microsecond=0)),
                st.text("aé東-: ", min_size=1, max_size=5),
            ),
            max_size=5,
        ),
        max_size=8,
    )
)
def test_cells_are_those_that_openpyxl_reads(rows):
    data = saved(book_of(*rows))
    oracle = openpyxl.load_workbook(io.BytesIO(data), data_only=True).active
    book = read_book(Archive(data))
    read = [cell.text for row in _Reader(Archive(data), book)._rows(book.sheets[0]) for cell in row if cell.text]
    expected = [as_text(value) for row in oracle.iter_rows(values_only=True) for value in row if value is not None]
    assert read == [text for text in expected if text]


def as_text(value):
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, datetime):
        return (value.date() if value.time() == time() else value).isoformat()
    return " ".join(value.split()) if isinstance(value, str) else f"{value:.15g}"


def test_formats_decide_how_a_number_is_shown():
    book = book_of(["Code", "Price"], [1234, 41000], [5, 42])
    for row in book.active.iter_rows(min_row=2):
        row[0].number_format, row[1].number_format = "00000", "GENERAL"
    assert read(book).text.split("\n")[3:] == ["Code: 01234 | Price: 41000", "Code: 00005 | Price: 42"]


def test_escaped_characters_are_read():
    data = changed(
        saved(book_of(["a", "one BREAK two"])), "xl/worksheets/sheet1.xml", b"BREAK", b"_x000D_\n_x005F_x0041_"
    )
    assert read_xlsx(data).text == "Sheet\n\na | one _x0041_ two"


def test_what_lies_over_a_sheet_is_read_or_told():
    book = book_of(["Item", "Price"], ["Pen", 5])
    book.active["A2"].comment = Comment("dear", "Ann")
    plot = BarChart()
    plot.title = "Prices"
    plot.add_data(Reference(book.active, min_col=2, min_row=1, max_row=2))
    book.active.add_chart(plot, "D4")
    box = "<xdr:sp><xdr:cNvPr descr='A box'/><xdr:txBody><a:p><a:r><a:t>Seen by</a:t></a:r><a:r><a:t> Bob</a:t></a:r>"
    box += "</a:p></xdr:txBody></xdr:sp>"
    data = saved(book)
    end = b"</wsDr>"
    data = changed(data, "xl/drawings/drawing1.xml", end, f"<g xmlns:xdr='x' xmlns:a='a'>{box}</g>".encode() + end)
    content = read_xlsx(data)
    assert content.text == "Sheet\n\nItem | Price\nItem: Pen | Price: 5\n\nSeen by Bob\nPrices"
    assert content.warnings == (
        "1 comment left out: they are not part of the text",
        "the description of 1 picture left out",
    )


def drawn(anchors, *others):
    """A sheet with a value and a drawing, which is named once more by each of the others."""
    archive = Archive(saved(book_of(["x"])))
    drawing = f"<g xmlns:xdr='x' xmlns:a='a' xmlns:mc='m' xmlns:c='c' xmlns:r='r'>{anchors}</g>"
    names = [("drawing", "../drawings/d.xml"), *(("drawing", f"../drawings/{other}") for other in others)]
    parts = {"xl/drawings/d.xml": drawing, "xl/worksheets/_rels/sheet1.xml.rels": rels(*names)}
    return read_xlsx(zipped({**{n: archive.read(n) for n in archive.names}, **parts}))


def box(text, properties=""):
    inner = f"<a:p><a:r><a:t>{text}</a:t></a:r></a:p>" if text else ""
    return f"<xdr:sp><xdr:nvSpPr><xdr:cNvPr {properties}/></xdr:nvSpPr><xdr:txBody>{inner}</xdr:txBody></xdr:sp>"


def test_of_alternatives_over_a_sheet_the_first_is_read():
    def either(new, old):
        return (
            f"<mc:AlternateContent><mc:Choice>{new}</mc:Choice><mc:Fallback>{old}</mc:Fallback></mc:AlternateContent>"
        )

    slicer = either(box(""), box("This shape represents a slicer."))
    content = drawn(slicer + either(box("Seen", "descr='a'"), box("Seen", "descr='a'")) + box("Not seen", "hidden='1'"))
    assert content.text == "Sheet\n\nx\n\nSeen"
    assert content.warnings == ("the description of 1 picture left out",)


def test_a_drawing_named_many_times_is_read_once():
    assert drawn(box("Seen"), *["d.xml"] * 9).text == "Sheet\n\nx\n\nSeen"


def test_a_sheet_that_is_a_form_has_no_header():
    form = [["Name", "Ann"], ["City", "Rome"], ["Salary", 50000]]
    assert read(book_of(*form)).text == "Sheet\n\nName | Ann\nCity | Rome\nSalary | 50000"
    table = book_of(["Term", "Meaning"], ["dog", "Hund"])
    for cell in table.active[1]:
        cell.font = Font(bold=True)
    assert read(table).text.endswith("Term: dog | Meaning: Hund")
