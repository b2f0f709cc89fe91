import pytest

from m3rag.reading.docx import read_docx

from .packages import docx, p


def r(text):
    return f"<m:r><m:t>{text}</m:t></m:r>"


def part(name, inner):
    return f"<m:{name}>{inner}</m:{name}>"


def over(top, bottom):
    return part("f", part("num", top) + part("den", bottom))


SUM = "<m:naryPr><m:chr m:val='∑'/></m:naryPr>" + part("sub", r("i=1")) + part("sup", r("m")) + part("e", r("i"))
MATRIX = "".join(part("mr", part("e", r(a)) + part("e", r(b))) for a, b in ((1, 2), (3, 4)))


@pytest.mark.parametrize(
    ("equation", "line"),
    [
        (over(r(1), r(25)), "1/25"),
        (r(2) + over(r(1), r(25)) + r("x"), "2 1/25 x"),
        (over(r("a+b"), over(r(1), r(2))), "(a+b)/(1/2)"),
        (part("sSup", part("e", r(10)) + part("sup", r(6))), "10⁶"),
        (part("sSup", part("e", r("x")) + part("sup", r("k+1"))), "x^(k+1)"),
        (part("sSubSup", part("e", r("x")) + part("sub", r("i")) + part("sup", r(2))), "x_i²"),
        (part("rad", "<m:deg/>" + part("e", r("x+1"))), "√(x+1)"),
        (part("rad", part("deg", r(3)) + part("e", r(8))), "³√8"),
        (part("nary", SUM), "∑_(i=1)^m i"),
        (part("func", part("fName", r("sin")) + part("e", r("x"))), "sin x"),
        (r("f") + part("d", part("e", r("x")) + part("e", r("y"))), "f(x|y)"),
        (part("d", "<m:dPr><m:begChr m:val='['/><m:endChr m:val=''/></m:dPr>" + part("e", r("x"))), "[x"),
        (part("m", MATRIX), "1 2; 3 4"),
        (part("limLow", part("e", r("lim")) + part("lim", r("n→0"))), "lim_(n→0)"),
    ],
)
def test_equations_in_a_line(equation, line):
    paragraph = f"<w:p><w:r><w:t>Is </w:t></w:r><m:oMath>{equation}</m:oMath><w:r><w:t>.</w:t></w:r></w:p>"
    assert read_docx(docx(paragraph)).text == f"Is {line}."


def test_what_is_deleted_in_an_equation_is_out():
    deleted = f"<w:del>{r(7)}</w:del>"
    assert (
        read_docx(docx(f"<w:p><m:oMath>{over(r(1) + deleted, r(25))}</m:oMath></w:p>" + p("end"))).text == "1/25\n\nend"
    )


def test_an_equation_too_deep_to_read_is_its_texts():
    equation = r(1)
    for _ in range(1_000):
        equation = over(equation, r(2))
    assert read_docx(docx(f"<w:p><m:oMath>{equation}</m:oMath></w:p>")).text == "1" + "2" * 1_000
