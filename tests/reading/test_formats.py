import pytest

from m3rag.errors import InputError
from m3rag.reading import FORMATS, Content, Format, formats, formats_known, read, register, supported_suffixes
from m3rag.reading.detect import KINDS


@pytest.fixture(autouse=True)
def _nothing_stays(monkeypatch):
    monkeypatch.setattr(formats, "_registered", {})


def read_log(data: bytes) -> Content:
    return Content("\n".join(line.split(" ", 1)[1] for line in data.decode().splitlines()))


def test_a_reader_of_ones_own_is_registered_once(tmp_path):
    path = tmp_path / "server.log"
    path.write_text("10:00 started\n10:01 ready\u200b")
    register(Format("server logs", (".log",), read_log))
    document = read(path, root=tmp_path)
    assert (document.id, document.text) == ("server.log", "started\nready")
    assert document.warnings == ("removed 1 hidden character",)
    assert ".log" in supported_suffixes()


def test_what_is_registered_goes_first_and_its_name_replaces(tmp_path):
    (tmp_path / "a.csv").write_text("x,y")
    register(Format("mine", (".csv",), lambda data: Content("mine")))
    assert read(tmp_path / "a.csv").text == "mine"
    register(Format("CSV", (".csv",), lambda data: Content("instead")))
    register(Format("mine", (".other",), lambda data: Content("mine")))
    assert read(tmp_path / "a.csv").text == "instead"
    assert len(formats_known()) == len(FORMATS) + 1


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"suffixes": ("log",)}, "'log' of 'x' must be like"),
        ({"suffixes": (".LOG",)}, "lower case"),
        ({"suffixes": ()}, "no suffixes, magic or kinds"),
        ({"suffixes": (), "kinds": ("nothing",)}, "kind 'nothing' of 'x' is not known"),
    ],
)
def test_a_format_that_cannot_be_found_is_refused(wrong, said):
    with pytest.raises(InputError, match=said):
        register(Format(name="x", reader=read_log, **wrong))


def test_built_in_formats_are_sound():
    suffixes = [s for f in FORMATS for s in f.suffixes]
    kinds = [k for f in FORMATS for k in f.kinds]
    assert len(set(suffixes)) == len(suffixes)
    assert len(set(kinds)) == len(kinds)
    assert set(kinds) <= set(KINDS)
