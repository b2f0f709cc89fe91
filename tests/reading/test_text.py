import codecs

import pytest

from m3rag.errors import ReadError
from m3rag.reading.text import read_text

from .files import check, real_files

RUSSIAN = "Все люди рождаются свободными и равными в своём достоинстве и правах. Они наделены разумом и совестью. " * 3
FRENCH = "L'été dernier, nous avons déjeuné près de la forêt où les élèves étaient arrivés très tôt. " * 3
JAPANESE = "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。" * 3


@pytest.mark.parametrize("entry", real_files(".txt"))
def test_real_files(entry):
    check(entry)


@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
        (codecs.BOM_UTF32_LE, "utf-32-le"),
        (codecs.BOM_UTF32_BE, "utf-32-be"),
    ],
)
def test_a_mark_decides(mark, encoding):
    content = read_text(mark + "Grüße 你好".encode(encoding))
    assert (content.text, content.metadata, content.warnings) == ("Grüße 你好", {"encoding": encoding}, ())


@pytest.mark.parametrize("encoding", ["utf-16-be", "utf-16-le", "utf-32-be", "utf-32-le"])
@pytest.mark.parametrize(
    "text", ["plain ASCII words", RUSSIAN, JAPANESE + "\n次の行です。\n" + JAPANESE + "\n終わり。"]
)
def test_wide_text_without_a_mark_is_known_by_its_zeros(encoding, text):
    assert read_text(text.encode(encoding)).text == text


@pytest.mark.parametrize(
    ("text", "encoding"), [(RUSSIAN, "cp1251"), (FRENCH, "cp1252"), (JAPANESE, "cp932"), (JAPANESE, "euc_jp")]
)
def test_other_encodings_are_guessed_and_said(text, encoding):
    content = read_text(text.encode(encoding))
    assert content.text == text
    assert "guess" in content.warnings[0]


def test_a_few_broken_bytes_do_not_turn_utf8_into_another_script():
    content = read_text(RUSSIAN.encode() + b"\xff end")
    assert content.text == RUSSIAN + "\ufffd end"
    assert content.warnings == ("1 places could not be decoded as utf-8 and read \ufffd",)


def test_line_ends_become_line_feeds_and_strays_go():
    assert (
        read_text(b"one\r\ntwo\rthree\n" + b"word " * 100 + b"\0end").text
        == "one\ntwo\nthree\n" + "word " * 100 + "\0end"
    )


def test_binary_data_is_refused():
    with pytest.raises(ReadError, match="binary data"):
        read_text(bytes(range(256)) * 10)
