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


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Price: 5 €", "cp1252"),
        ("Ich weiß.", "cp1252"),
        ("Änderungen", "cp1252"),
        ("25 °C", "cp1252"),
        ("3 × 4 · 5, £2", "cp1252"),
        ("© 2020 Foo. All rights reserved.", "cp1252"),
        ("“Smart quotes” – and a dash… it’s", "cp1252"),
        ("L’été, un café à la crème", "cp1252"),
        ("El niño comió piñas en la mañana", "cp1252"),
        ("Ærø og Århus ligger på øer", "cp1252"),
        ("x" * 20_000 + " São João não é", "cp1252"),
        ("Zażółć gęślą jaźń, proszę przyjść jutro", "cp1250"),
        ("Příliš žluťoučký kůň úpěl ďábelské ódy", "cp1250"),
        ("Árvíztűrő tükörfúrógép", "cp1250"),
        ("Все люди рождаются свободными и равными", "cp1251"),
        ("Все люди рождаются свободными и равными", "koi8_r"),
        ("Η γρήγορη αλεπού πηδάει πάνω από το σκυλί", "cp1253"),
        ("يولد جميع الناس أحراراً ومتساوين في الكرامة والحقوق", "cp1256"),
        ("มนุษย์ทั้งหลายเกิดมามีอิสระ", "cp874"),
        ("모든 인간은 태어날 때부터 자유로우며", "cp949"),
        ("人人生而自由，在尊严和权利上一律平等。", "gb18030"),
        ("人人生而自由，在尊嚴和權利上一律平等。", "big5hkscs"),
    ],
)
def test_short_texts_are_guessed_by_their_letters(text, encoding):
    assert read_text(text.encode(encoding)).text == text


@pytest.mark.parametrize(
    ("folder", "encodings"),
    [
        ("es", ["cp1252"]),
        ("fr", ["cp1252"]),
        ("ja", ["cp932", "euc_jp"]),
        ("ko", ["cp949"]),
        ("ru", ["cp1251", "koi8_r"]),
        ("zh", ["gb18030"]),
        ("zh-hant", ["big5hkscs", "gb18030"]),
    ],
)
def test_markdown_full_of_code_is_guessed_too(shared_data, folder, encodings):
    for path in sorted((shared_data / "files" / "md-fastapi" / folder).glob("*.md")):
        for encoding in encodings:
            data = path.read_text("utf-8").encode(encoding, "ignore")  # what it has of emoji
            assert read_text(data).text == data.decode(encoding), (path.name, encoding)


@pytest.mark.parametrize(
    ("text", "encoding"), [(JAPANESE, "iso2022_jp"), ("すべて", "iso2022_jp"), ("모든 인간은", "iso2022_kr")]
)
def test_text_in_seven_bits_is_known_by_its_escapes(text, encoding):
    content = read_text(text.encode(encoding))
    assert (content.text, content.warnings) == (text, ())


def test_what_no_letters_tell_of_is_read_with_a_warning():
    assert "read as cp1252, which is a guess" in read_text(b"abc \xff\xa6\xb6").warnings[0]


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


TURKISH = (
    "Bütün insanlar hür, haysiyet ve haklar bakımından eşit doğarlar. Akıl ve vicdana sahiptirler ve birbirlerine "
    "karşı kardeşlik zihniyeti ile hareket etmelidirler. Herkes, ırk, renk, cinsiyet, dil, din, siyasi veya diğer "
    "herhangi bir akide."
)


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (TURKISH, "cp1254"),
        ("Hver maður er borinn frjáls og jafn öðrum að virðingu og réttindum. Menn eru gæddir vitsmunum.", "cp1252"),
        ("Öll menniskju eru fødd fræls og jøvn til virðingar og mannarættindi. Tey hava skil og samvitsku.", "cp1252"),
        ("Hwæt! We Gardena in geardagum, þeodcyninga, þrym gefrunon, hu ða æþelingas ellen fremedon.", "cp1252"),
        ("Größe und Übermut: die Straße nach München führt über viele Brücken, sagt Þór Sigurðsson.", "cp1252"),
        (FRENCH, "cp1252"),
    ],
)
def test_turkish_is_told_from_languages_with_other_letters_in_the_same_places(text, encoding):
    for times in (1, 30):
        assert read_text((text * times).encode(encoding)).metadata == {"encoding": encoding}
