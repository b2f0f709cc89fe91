import pytest

from m3rag.errors import ReadError
from m3rag.reading.rtf import MAX_DEPTH, read_rtf

from .packages import spans_hold

FONTS = (
    rb"{\fonttbl{\f0\fcharset0 Arial;}{\f1\froman\fcharset128 {\*\falt x}MS Mincho;}{\f2\fcharset204 Arial Cyr;}"
    rb"{\f3\fcharset2 Symbol;}{\f4\cpg1253 Greek;}}"
)


def read(body, *, head=rb"\ansi\ansicpg1252\deff0"):
    content = read_rtf(b"{\\rtf1" + head + FONTS + body + b"}")
    spans_hold(content)
    return content


def text_of(body, **options):
    return read(body, **options).text


def test_paragraphs_lines_and_special_characters():
    assert text_of(rb"One\line two\tab three\par Four\emdash five\~six\_seven\-eight \{\\\}" + b"\r\nnine\\\nten") == (
        "One\ntwo three\n\nFour\u2014five\u00a0six\u2011seveneight {\\}nine\n\nten"
    )


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (rb"caf\'e9", "café"),
        (rb"\f1\'93\'8c\'8b\'9e", "東京"),
        # The second byte of these is a letter of ASCII, written as itself.
        (rb"\f1\'83A\'83C", "アイ"),
        (rb"\f2\'cf\'f0\'e8{\f0\'e9}\'e2", "Приéв"),
        (rb"\f4\'e1\'e2", "αβ"),
        (rb"\f3\'b7\'e5 x", "\u2022"),
        (rb"{\f2\'cf}\plain\'e9", "Пé"),
        (rb"\f9\'e9", "é"),
    ],
)
def test_bytes_are_in_the_code_page_of_their_font(body, said):
    assert text_of(body) == said


@pytest.mark.parametrize(
    ("head", "said"),
    [(rb"\ansi\ansicpg1251", "й"), (rb"\mac", "È"), (rb"\pc", "Θ"), (rb"\pca", "Ú"), (rb"\ansi", "é")],
)
def test_without_a_font_the_files_code_page_counts(head, said):
    assert read_rtf(rb"{\rtf1" + head + rb" \'e9}").text == said


def test_a_code_page_that_is_not_known_is_told():
    content = read_rtf(rb"{\rtf1\ansi\ansicpg4711 \'e9}")
    assert (content.text, content.warnings) == ("é", ("code page 4711 is not known: read as cp1252",))


def test_bytes_that_no_code_page_has_are_told():
    content = read(rb"\f1 x\'ff\'ff")
    assert content.warnings == ()  # they are letters of the file's own code page
    content = read_rtf(rb"{\rtf1\ansi\ansicpg932 x\'81\'ff}")
    assert content.text.startswith("x\ufffd")
    assert "could not be decoded" in content.warnings[0]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (rb"\u26481?\u20140?", "東京"),
        (rb"\uc2\u26481\'93\'8cx", "東x"),
        (rb"\uc0\u233x", "éx"),
        (rb"{\uc3\u233abcd}\u233ab", "édéb"),
        (rb"\u-10179?\u-8704?", "\U0001f600"),
        (rb"\u-3913\'b7 x", " x"),
        (rb"\u55357?", "\ufffd"),
        (rb"\u233{x}", "éx"),
    ],
)
def test_unicode_escapes_stand_for_their_fallbacks(body, said):
    assert text_of(body) == said.strip()


def test_headings_by_outline_level_and_by_style():
    styles = (
        rb"{\stylesheet{\s0 Normal;}{\s1\outlinelevel0 heading 1;}{\s2\sbasedon1 Clause;}{\s3\sbasedon3 Loop;}"
        rb"{\s4 Title;}{\s5\outlinelevel9\sbasedon1 Body;}{\*\cs6 heading 3;}}"
    )
    content = read(
        styles + rb"\pard\s4 Top\par\pard\s1 One\par\pard\s2 Two\par\pard\s3 Three\par\pard\s5 Five\par\pard Six\par"
        rb"\pard\outlinelevel2 Seven\par\pard Eight"
    )
    assert [(h.text, h.level) for h in content.headings] == [("Top", 1), ("One", 1), ("Two", 1), ("Seven", 3)]
    assert content.text == "Top\n\nOne\n\nTwo\n\nThree\n\nFive\n\nSix\n\nSeven\n\nEight"


def test_tables_stand_in_their_place():
    row = rb"\trowd\cellx1\cellx2\pard\intbl %s\cell %s\cell\row"
    body = rb"before\par" + row % (b"Name", b"Born") + row % (rb"Ada\par Lovelace", b"1815") + rb"\pard after\par"
    assert text_of(body) == "before\n\nName | Born\nAda Lovelace | 1815\n\nafter"
    unended = rb"\trowd\pard\intbl a\cell b\cell\pard after\par"
    assert text_of(unended) == "a | b\n\nafter"
    nested = (
        rb"\trowd\pard\intbl left\cell c\nestcell d\nestcell{\*\nesttableprops\nestrow}{\nonesttables\par}\cell\row"
    )
    assert text_of(nested) == "left | c d"


def test_what_nobody_sees_is_left_out():
    content = read(
        rb"seen{\v hidden}\v too\v0{\deleted gone}{\*\unknown secret {deep}}{\pict\bin5 }{{}}}x{\*\bkmkstart a}"
        rb"{\field{\*\fldinst HYPERLINK \"http://localhost\"}{\fldrslt{link}}}{\xe index}{\pntext 1.}{\listtext\'b7}"
        rb"{\info{\author somebody}}{\*\annotation remark}\par"
    )
    assert content.text == "seenxlink"
    assert content.warnings == ("left out 2 hidden passages",)


def test_text_boxes_alternatives_and_formulas_hold_text():
    assert text_of(rb"a{\shp{\*\shpinst{\sp{\sn x}{\sv y}}{\shptxt boxed\par}}{\shprslt old}}b") == "aboxed\n\nb"
    assert text_of(rb"{\upr{ansi}{\*\ud{\u26481?}}}") == "東"
    assert text_of(rb"{\*\do{\dptxbxtext drawn}}") == "drawn"
    assert text_of(rb"{\mmath{\*\moMath{\mr E=mc}}}") == "E=mc"


def test_notes_and_page_headers():
    body = (
        rb"{\header ACME\par}{\headerf ACME}{\footer\chpgn 1}Cited{\super 1{\footnote\pard\plain A {\i note}.}} here."
    )
    body += rb"\par next"
    assert text_of(body) == "ACME\n\nCited¹ here.\n\nA note.\n\nnext"
    row = rb"\trowd\pard\intbl a{\footnote n}\cell b\cell\row\pard after"
    assert text_of(row) == "a | b\n\nn\n\nafter"


def test_the_title_is_that_of_the_properties():
    assert read(rb"{\info{\title \u26481?\'e9 {\b x}}{\author y}}text").title == "東é x"
    assert read(rb"{\info{\title Microsoft Word - a.doc}}text").title == ""


def test_damaged_files_are_read_as_far_as_they_go_or_refused():
    content = read_rtf(rb"{\rtf1 whole\par half {\footnote cut")
    assert content.text == "whole\n\nhalf\n\ncut"
    assert content.warnings == ("the file ends early: its last part may be missing",)
    assert read_rtf(rb"{\rtf1 text}} {trailing}").text == "text"
    with pytest.raises(ReadError, match="is no RTF"):
        read_rtf(b"{}")
    with pytest.raises(ReadError, match="nests more than 10,000 groups"):
        read_rtf(rb"{\rtf1" + b"{" * (MAX_DEPTH + 1))


def test_any_number_after_a_word_is_harmless():
    numbers = b"".join(
        b"\\%s%d " % (word, n)
        for word in (b"u", b"uc", b"f", b"s", b"outlinelevel", b"bin", b"ansicpg", b"v0\\deleted", b"deff", b"cpg")
        for n in (-99999999, -1, 99999999)
        if (word, n) not in {(b"bin", 99999999), (b"uc", 99999999)}
    )
    assert (
        read_rtf(rb"{\rtf1 a" + numbers.replace(b"v0\\deleted", b"v0\\deleted0\\b") + rb"\pard\uc0 z}").text[0] == "a"
    )


def test_raised_and_lowered_digits_and_fractions_are_no_part_of_the_number_beside_them():
    assert text_of(rb"10{\super 6} CO{\sub 2} m\super 2\nosupersub , 2{\super nd}") == "10⁶ CO₂ m², 2nd"
    over = rb"{\*\moMath{\mf{\mnum{\mr 1}}{\mden{\mr 25}}}} {\*\moMath{\msSup{\me{\mr 10}}{\msup{\mr 6}}}}"
    assert text_of(over) == "(1)/(25) 10^(6)"


def test_raised_runs_beside_each_other_are_one():
    body = rb"July 2{\super n}{\super d}, a{\super [}{\super 1}{\super ]}, 10{\super 1}{\super 2}{\sub 3}"
    assert text_of(body + rb"{\super 2}\endash 5 {\super\'bd} 1{\super 1/2}") == "July 2nd, a[1], 10¹²₃²–5 ½ 1 1/2"
