import pytest

from m3rag.reading.periods import periods


@pytest.mark.parametrize(
    ("cells", "below", "places"),
    [
        (["Region", "2019", "2020"], [["North", "5", "7"]], {1, 2}),
        (["", "2020-06-30", "2019-06-30"], [["a", "5", ""]], {1, 2}),
        (["x", "2019/20", "2020/21"], [["a", "5", "1999"], ["b", "6", "7"]], {1, 2}),
        (["Region", "2019"], [["North", "5"]], set()),
        (["Region", "2019", "1990", "2020"], [["North", "5", "6", "7"]], set()),
        (["Ann", "1961", "2001"], [["Bob", "1958", "2003"]], set()),
        (["Region", "2019", "2020"], [], set()),
        (["Widget", "1990", "2050"], [["Gadget", "150", "99"]], set()),
        (["Widget", "1990", "1995", "1999"], [["Gadget", "150", "99", "5"]], set()),
        (["Region", "2000", "2010", "2020"], [["North", "5", "6", "7"]], {1, 2, 3}),
        (["Region", "2020", "2016", "2012"], [["North", "5", "6", "7"]], {1, 2, 3}),
    ],
)
def test_a_series_above_other_values_names_columns(cells, below, places):
    assert periods(cells, below) == places
