"""E-mail (RFC 5322, MIME): who wrote to whom, when and about what, then what was written."""

from __future__ import annotations

import email
from codecs import BOM_UTF8
from collections.abc import Iterator
from datetime import datetime
from email import policy
from email.errors import MessageError
from email.header import decode_header, make_header
from email.message import EmailMessage, Message, MIMEPart
from email.utils import parsedate_to_datetime
from typing import cast

from m3rag.errors import ReadError
from m3rag.reading.content import Content
from m3rag.reading.decoding import decode
from m3rag.reading.html import read_html
from m3rag.types import Heading

SHOWN = ("Subject", "From", "To", "Cc", "Date")


def read_eml(data: bytes) -> Content:
    """Read one message.

    Args:
        data: The file's bytes.

    Returns:
        The lines `Subject: ...`, `From`, `To`, `Cc` and `Date`, a blank line, and the text, that of
        the HTML part where there is no plain one, with what goes on after a picture or stands in the footer of
        a mailing list. The subject is the title and a heading; `from`,
        `to`, `cc`, `date` (ISO 8601) and `message_id` are metadata. Attachments are named in the
        warnings.

    Raises:
        ReadError: It has none of these headers, so it is no message.
    """
    message = email.message_from_bytes(data.removeprefix(BOM_UTF8), policy=policy.default)
    headers = {name: value for name in SHOWN if (value := _header(message, name))}
    if not headers:
        raise ReadError("is no e-mail message: it has no subject, sender, recipient or date; save the message again")
    body, told = _body(message)
    subject = headers.get("Subject", "")
    lead = "\n".join(f"{name}: {value}" for name, value in headers.items())
    return Content(
        f"{lead}\n\n{body}".strip(),
        title=subject,
        headings=(Heading(subject, 1, 0, len("Subject: ") + len(subject)),) if subject else (),
        metadata=_metadata(message, headers),
        warnings=tuple(told),
    )


def _header(message: Message, name: str) -> str:
    """A header on one line, encoded words decoded as far as their character set is known."""
    try:
        return " ".join(str(message.get(name, "")).split())
    except (ValueError, LookupError, TypeError, AttributeError, MessageError):
        # The strict parser stumbles over some malformed addresses; the lenient one takes them as text.
        raw = next((str(v) for k, v in message.raw_items() if k.lower() == name.lower()), "")
    try:
        return " ".join(str(make_header(decode_header(raw))).split())
    except (ValueError, LookupError, MessageError):
        return " ".join(raw.split())


def _metadata(message: Message, headers: dict[str, str]) -> dict[str, str]:
    found = {name.lower(): value for name, value in headers.items() if name != "Subject"}
    identity = _header(message, "Message-ID")
    if identity:
        found["message_id"] = identity
    moment = _moment(headers.get("Date", ""))
    if moment is not None:
        found["date"] = moment.isoformat()
    return found


def _moment(date: str) -> datetime | None:
    try:
        return parsedate_to_datetime(date)
    except (ValueError, TypeError, IndexError):
        return None


def _body(message: EmailMessage) -> tuple[str, list[str]]:
    """The text, and what was doubtful about it."""
    told: list[str] = []
    texts: list[str] = []
    body = None
    for kind in ("plain", "html"):
        part = message.get_body((kind,))
        if part is not None and (text := _text_of(part, kind, told)):
            texts.append(text)
            body = part
            break
    beside = list(_beside(message, body))
    for part in filter(_goes_on, beside):
        if text := _text_of(part, part.get_content_subtype(), told):
            texts.append(text)
    told += [] if texts else ["the message has no text"]
    named = [f"the attachment {name} is not read; save it as a file to ingest it" for name in _attachments(beside)]
    return "\n\n".join(texts), [*told, *named]


def _beside(message: MIMEPart, body: MIMEPart | None) -> Iterator[MIMEPart]:
    """The parts of a message that are neither its body nor another form of that."""
    if message.get_content_subtype() == "alternative":
        return
    for part in message.iter_parts():
        if not any(inner is body for inner in part.walk()):
            yield part
        elif part.is_multipart():
            yield from _beside(part, body)


def _goes_on(part: MIMEPart) -> bool:
    """Whether a part is shown below the text: programs divide it where a picture stands, lists add a footer."""
    shown = part.get_content_type() in ("text/plain", "text/html")
    return shown and part.get_content_disposition() != "attachment" and not part.get_filename()


def _text_of(part: MIMEPart, kind: str, told: list[str]) -> str:
    # A malformed transfer encoding leaves the payload as it came.
    payload = cast("bytes", part.get_payload(decode=True) or b"")
    if not payload.strip():
        return ""
    try:
        text, doubts = _text(payload, kind, part.get_content_charset())
    except ReadError as error:
        told.append(f"the {kind} text is left out: it {error}")
        return ""
    told += doubts
    return text


def _text(payload: bytes, kind: str, charset: str | None) -> tuple[str, tuple[str, ...]]:
    if kind == "html":
        declared = f'<meta charset="{charset}">'.encode() if charset and charset.isascii() else b""
        content = read_html(declared + payload, framed=False)
        return content.text, content.warnings
    decoded = decode(payload, declared=charset)
    return decoded.text.strip(), decoded.warnings


def _attachments(parts: list[MIMEPart]) -> list[str]:
    names = []
    for part in parts:
        if _goes_on(part):
            continue
        if part.get_content_maintype() == "image" and part.get_content_disposition() != "attachment":
            continue  # a picture within the text
        inner = part.get_content_type()
        names.append(" ".join((part.get_filename() or f"without a name ({inner})").split()))
    return names
