from m3rag.reading.archive import Archive
from m3rag.reading.office_charts import chart_lines

from .packages import chart, zipped


def lines(part):
    return chart_lines(Archive(zipped({"chart.xml": part})), "chart.xml")


def test_a_line_for_each_category():
    part = chart("Sales", Revenue={"North": "19.199999999999999", "South": "21"}, Cost={"North": "3", "South": "4"})
    assert lines(part) == ["Sales", "North | Revenue: 19.2 | Cost: 3", "South | Revenue: 21 | Cost: 4"]


def test_numbers_are_as_their_format_shows_them():
    dated = chart("", Share={"45413": "0.25"}).replace("<c:numCache>", "<c:numCache><c:formatCode>0%</c:formatCode>")
    days = "<c:numCache><c:formatCode>yyyy-mm-dd</c:formatCode>"
    category = dated.replace("<c:cat><c:strRef><c:strCache>", f"<c:cat><c:strRef>{days}").replace(
        "</c:strCache></c:strRef></c:cat>", "</c:numCache></c:strRef></c:cat>"
    )
    assert lines(category) == ["2024-05-01 | Share: 25%"]


def test_a_chart_without_anything_has_no_lines():
    assert lines(chart("")) == []


def test_series_with_labels_of_their_own_stand_by_themselves():
    part = chart("", A={"1": "10", "2": "20"}, B={"5": "50", "2": "60"}, C={"1": "70"}).replace("c:cat>", "c:xVal>")
    assert lines(part) == ["1 | A: 10 | C: 70", "2 | A: 20", "5 | B: 50", "2 | B: 60"]
