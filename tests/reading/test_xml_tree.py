import pytest

from m3rag.errors import ReadError
from m3rag.reading.archive import Archive
from m3rag.reading.xml_tree import MalformedError, attribute, child, local, parse_part, stream_part

from .packages import zipped

LAUGHS = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;">]><x>&c;</x>'
EXTERNAL = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><x>&a;</x>'
PARAMETER = '<!DOCTYPE x [<!ENTITY % a SYSTEM "http://localhost/a.dtd"> %a;]><x/>'
BARE = '<!DOCTYPE x PUBLIC "-//X" "http://localhost/x.dtd"><x>text</x>'


def archive(*texts):
    return Archive(zipped({str(n): t if isinstance(t, bytes) else t.encode() for n, t in enumerate(texts)}))


@pytest.mark.parametrize("text", [LAUGHS, EXTERNAL, PARAMETER, BARE])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_declarations_are_refused_in_any_encoding(text, encoding):
    part = archive(text.encode(encoding))
    with pytest.raises(ReadError, match="declares a document type or entities in 0"):
        parse_part(part, "0")
    with pytest.raises(ReadError, match="declares a document type"):
        list(stream_part(part, "0", within=("x",)))


@pytest.mark.parametrize("text", [LAUGHS, EXTERNAL, PARAMETER])
def test_entities_are_refused_even_where_a_document_type_may_be_named(text):
    with pytest.raises(ReadError, match="entities"):
        parse_part(archive(text), "0", doctype=True)
    assert parse_part(archive(BARE), "0", doctype=True).text == "text"


def test_a_declaration_behind_a_long_comment_is_refused():
    with pytest.raises(ReadError, match="entities"):
        parse_part(archive("<!--" + "long " * 50_000 + "-->" + LAUGHS), "0")


def test_what_is_not_xml_is_malformed():
    for text in ("", "no xml", "<x>", "<x></y>", "<x>&unknown;</x>", '<?xml version="1.0" encoding="nonsense"?><x/>'):
        with pytest.raises(MalformedError, match="0 is not well-formed"):
            parse_part(archive(text), "0")
    with pytest.raises(MalformedError):
        list(stream_part(archive("<x><y><z/>"), "0", within=("y",)))


def test_children_are_streamed_one_by_one_from_the_outermost_container():
    text = "<x><a/><y>" + "".join(f"<z n='{n}'><y><q/></y></z>" for n in range(50_000)) + "</y><y><no/></y></x>"
    seen = 0
    for element in stream_part(archive(text), "0", within=("y",)):
        assert (local(element), attribute(element, "n")) == ("z", str(seen))
        assert child(element, "y", "q") is not None
        assert child(element, "q", "y") is None
        seen += 1
    assert seen == 50_000
    assert list(stream_part(archive("<x/>"), "0", within=("y",))) == []


def test_deep_nesting_is_parsed():
    deep = parse_part(archive("<a>" * 100_000 + "</a>" * 100_000), "0")
    assert sum(1 for _ in deep.iter()) == 100_000
