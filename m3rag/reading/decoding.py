"""Bytes to text: by byte order mark, by declaration, as UTF-8, and only then by guessing."""

from __future__ import annotations

import codecs
import re
import unicodedata
from dataclasses import dataclass

from charset_normalizer import from_bytes

from m3rag.errors import ReadError

# UTF-32 first: its little-endian mark begins with that of UTF-16.
MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# What pages call by these names are the larger sets, as every browser assumes (WHATWG Encoding).
ALIASES = {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "big5": "big5hkscs",
    "tis-620": "cp874",
}
SAMPLE = 1 << 18

COMMONEST = "cp1252"
LEGACY = (COMMONEST, "cp1250", "cp1251", "koi8_r", *(f"cp125{n}" for n in range(3, 9)), "cp874")
LEGACY += ("cp932", "euc_jp", "cp949", "gb18030", "big5hkscs")
"""What text without a mark is in, among all that there are tables for: rarer ones are more often guessed than met."""
TELLING = 1 << 14  # bytes from which an encoding is guessed
FEW = 8
"""Bytes beyond ASCII from which nothing can be told."""
HIGH = bytes(range(0x80, 0x100))

_LETTERS = {
    "six": "ĞİŞğış".encode("cp1254"),
    "turkish": "ÇÖÜçöü".encode("cp1254"),
    "nordic": "ÁÆÍÓÚáæíóú".encode("cp1252"),
    "all": HIGH,
}


@dataclass(frozen=True, slots=True)
class Decoded:
    """Text with line feeds as line ends, the encoding it was in, and what was doubtful about it."""

    text: str
    encoding: str
    warnings: tuple[str, ...] = ()


def decode(data: bytes, *, declared: str | None = None) -> Decoded:
    """Decode a file's bytes.

    Args:
        data: The whole file.
        declared: The encoding that the file claims for itself, as in HTML's `<meta charset>`.

    Returns:
        The text, with a warning where the encoding was guessed or characters were lost.

    Raises:
        ReadError: The bytes are not text.
    """
    for mark, encoding in MARKS:
        if data.startswith(mark):
            return _lossy(data[len(mark) :], encoding)
    wide = _wide(data)
    if wide:
        return _lossy(data, wide)
    escaped = _escaped(data)
    if not escaped and _is_binary(data):
        raise ReadError("is binary data, not text; give it its right suffix or leave it out")
    for name in filter(None, (_known(declared), escaped, "utf-8")):
        try:
            return Decoded(_lines(data.decode(name)), name)
        except UnicodeDecodeError:
            continue
    return _nearly_utf8(data) or _guess(data)


def _lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _known(declared: str | None) -> str | None:
    if not declared:
        return None
    try:
        name = codecs.lookup(declared).name
    except LookupError:
        return None
    # A declaration that could be read as ASCII cannot be in a two-byte encoding.
    return "utf-8" if name.startswith(("utf-16", "utf-32")) else ALIASES.get(name, name)


def _lossy(data: bytes, encoding: str, *warnings: str) -> Decoded:
    try:
        return Decoded(_lines(data.decode(encoding)), encoding, warnings)
    except UnicodeDecodeError:
        text = data.decode(encoding, errors="replace")
    lost = f"{text.count(chr(0xFFFD))} places could not be decoded as {encoding} and read \ufffd"
    return Decoded(_lines(text), encoding, (*warnings, lost))


def _wide(data: bytes) -> str | None:
    """UTF-16 or UTF-32 without a mark, known by their zeros: no other text has any."""
    sample = data[:SAMPLE]
    if not sample.count(0):
        return None
    for encoding in ("utf-32-le", "utf-32-be"):
        if len(sample) >= 8 and _is_sound(sample[: len(sample) // 4 * 4], encoding):
            return encoding
    half = len(sample) // 2
    even, odd = sample[0::2].count(0) / max(half, 1), sample[1::2].count(0) / max(half, 1)
    encoding = "utf-16-le" if odd > even else "utf-16-be"
    if not half or min(odd, even) > 0.02:
        return None
    if max(odd, even) >= 0.2:
        text = sample[: 2 * half].decode(encoding, errors="replace")
        return encoding if sum(c < " " and not c.isspace() for c in text) <= half // 100 else None
    return encoding if not min(odd, even) and _has_wide_blanks(sample[: 2 * half], encoding) else None


def _has_wide_blanks(sample: bytes, encoding: str) -> bool:
    """Text without Latin letters, as in Chinese, has zeros in its blanks and line ends alone."""
    if not _is_binary(sample) and _is_utf8(sample):
        return False  # with a stray zero in it
    # The sample may end between the halves of a character.
    sound = next((end for end in (len(sample), len(sample) - 2) if _is_sound(sample[:end], encoding)), 0)
    return sound > 0 and sum(c in " \n" for c in sample[:sound].decode(encoding)) > 1


def _is_utf8(sample: bytes) -> bool:
    try:
        sample.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _is_sound(sample: bytes, encoding: str) -> bool:
    try:
        text = sample.decode(encoding)
    except UnicodeDecodeError:
        return False
    odd = sum(unicodedata.category(c) in ("Cc", "Cn", "Co") and not c.isspace() for c in text)
    return odd <= len(text) // 100


def _is_binary(data: bytes) -> bool:
    """Whether control bytes are more than strays; escape (27) is left out, logs are full of it."""
    sample = data[:SAMPLE]
    controls = len(sample) - len(sample.translate(None, bytes([*range(7), *range(14, 27), *range(28, 32)])))
    return controls > len(sample) // 100


def _nearly_utf8(data: bytes) -> Decoded | None:
    """UTF-8 with a few broken bytes, which a guess would turn into another script altogether."""
    text = data.decode("utf-8", errors="replace")
    broken = text.count("\ufffd")
    sound = sum(1 for c in text if c > "\x7f") - broken
    return _lossy(data, "utf-8") if sound > 9 * broken else None


def _guess(data: bytes) -> Decoded:
    found = _likeliest(data[:SAMPLE])
    encoding = ALIASES.get(codecs.lookup(found).name, found)
    return _lossy(data, encoding, f"not UTF-8: read as {encoding}, which is a guess; save it as UTF-8 to be sure")


def _likeliest(data: bytes) -> str:
    # What code and markup there is says nothing of an encoding, and counts as noise.
    telling = b"\n".join(line for line in re.split(rb"[\r\n]+", data) if not line.isascii())
    if len(telling) > TELLING and (whole := re.match(rb"(?s).*[\x00-\x2f]", telling[:TELLING])):
        telling = whole[0]  # such a byte is part of no character of two bytes
    if len(telling) - len(telling.translate(None, HIGH)) <= FEW:
        return COMMONEST
    if _is_turkish(telling):
        return "cp1254"
    found = {match.encoding: match for match in from_bytes(telling, cp_isolation=list(LEGACY), threshold=0.5)}
    if not found:
        return COMMONEST
    best = next(iter(found.values()))
    western = found.get(COMMONEST, best)
    # Western text is often about as plausible in a rarer table.
    near = western.chaos <= best.chaos + 0.02 and western.coherence >= best.coherence - 0.1
    return western.encoding if near else best.encoding


def _is_turkish(telling: bytes) -> bool:
    """Whether text is in cp1254 rather than cp1252, its twin but for six letters.

    They are the Turkish ones, the most frequent of the language beyond ASCII. Icelandic and Faroese have others in
    their places, and along with them accents that Turkish has not.
    """
    counts = {name: len(telling) - len(telling.translate(None, letters)) for name, letters in _LETTERS.items()}
    return 2 * counts["six"] > counts["all"] and counts["turkish"] > counts["nordic"]


def _escaped(data: bytes) -> str | None:
    """The encoding of Japanese or Korean text in seven bits, as in mail, known by its escapes."""
    if b"\x1b" not in data or not data.isascii():
        return None
    if b"\x1b$)C" in data:
        return "iso2022_kr"
    return "iso2022_jp_ext" if any(mark in data for mark in (b"\x1b$B", b"\x1b$@", b"\x1b(J")) else None
