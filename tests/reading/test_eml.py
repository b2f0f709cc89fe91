from email.message import EmailMessage

import pytest

from m3rag.errors import ReadError
from m3rag.reading import parse
from m3rag.reading.eml import read_eml


def message(**headers):
    made = EmailMessage()
    for name, value in headers.items():
        made[name.replace("_", "-")] = value
    return made


def test_headers_then_text():
    made = message(
        Subject="Grüße aus Köln",
        From="Ann <ann@example.org>",
        To="bob@example.org",
        Date="Mon, 01 Jan 2024 10:00:00 +0100",
        Message_ID="<1@example.org>",
    )
    made.set_content("Hallo Bob,\n\nes ist schön.\n")
    content = read_eml(made.as_bytes())
    assert content.text == (
        "Subject: Grüße aus Köln\nFrom: Ann <ann@example.org>\nTo: bob@example.org\n"
        "Date: Mon, 01 Jan 2024 10:00:00 +0100\n\nHallo Bob,\n\nes ist schön."
    )
    assert content.title == content.headings[0].text == "Grüße aus Köln"
    assert content.text[content.headings[0].start : content.headings[0].end] == "Subject: Grüße aus Köln"
    assert content.metadata == {
        "from": "Ann <ann@example.org>",
        "to": "bob@example.org",
        "date": "2024-01-01T10:00:00+01:00",
        "message_id": "<1@example.org>",
    }


def test_plain_text_goes_before_html_and_attachments_are_named():
    made = message(Subject="x")
    made.set_content("plain words")
    made.add_alternative("<p>html words</p>", subtype="html")
    made.add_attachment(b"%PDF-", maintype="application", subtype="pdf", filename="Überblick.pdf")
    made.add_attachment(b"x", maintype="application", subtype="octet-stream")
    content = read_eml(made.as_bytes())
    assert content.text == "Subject: x\n\nplain words"
    assert content.warnings == (
        "the attachment Überblick.pdf is not read; save it as a file to ingest it",
        "the attachment without a name (application/octet-stream) is not read; save it as a file to ingest it",
    )


def test_html_alone_is_read_as_a_page():
    made = message(Subject="x")
    made.set_content("<p>Grüße</p><p hidden>secret</p><div>two</div>", subtype="html", charset="iso-8859-1")
    assert read_eml(made.as_bytes()).text == "Subject: x\n\nGrüße\n\ntwo"


@pytest.mark.parametrize("charset", ["koi8-r", "utf-8", "windows-1251", "x-unknown"])
def test_character_sets(charset):
    words = "Привет, как дела? Всё хорошо, спасибо."
    known = "utf-8" if charset.startswith("x-") else charset
    data = f"Subject: x\nContent-Type: text/plain; charset={charset}\n\n".encode() + words.encode(known)
    assert read_eml(data).text == f"Subject: x\n\n{words}"


@pytest.mark.parametrize(
    "header",
    [
        b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?= =?utf-8?b?8J+YgA==?=",
        b"Subject: =?x-unknown?q?abc?=",
        b"Subject: x\nFrom: =?utf-8?q?broken",
        b"Subject: x\nTo: <<>>,,;:@[",
        b"Subject: x\nDate: the day before",
        b"Subject: x\nContent-Transfer-Encoding: base64",
        b"Subject: x\nContent-Type: multipart/mixed; boundary=never",
        b"Subject: \xff\xfe raw bytes",
    ],
)
def test_malformed_messages_are_still_read(header):
    content = read_eml(header + b"\n\nbody of the message\n")
    assert content.text.startswith("Subject: ")
    assert content.title


def test_what_has_no_header_is_no_message():
    with pytest.raises(ReadError, match="no e-mail message"):
        read_eml(b"just words\n\nand more")


def test_a_byte_order_mark_hides_no_header():
    made = message(Subject="Marked", From="a@b.c")
    made.set_content("words")
    content = read_eml(b"\xef\xbb\xbf" + made.as_bytes())
    assert content.text == "Subject: Marked\nFrom: a@b.c\n\nwords"


def test_a_message_is_known_without_its_suffix():
    made = message(Subject="By content", From="a@b.c")
    made.set_content("words")
    assert parse(made.as_bytes(), name="mail").title == "By content"


def test_text_goes_on_below_pictures_and_in_the_footer_of_a_list():
    made = message(Subject="x")
    made.set_content("before the picture")
    made.add_alternative("<p>before the picture</p>", subtype="html")
    made.make_mixed()
    made.add_attachment(b"x", maintype="image", subtype="png", disposition="inline")
    made.add_attachment("after it\n", disposition="inline")
    made.add_attachment("<p>footer</p>", subtype="html", disposition="inline")
    made.add_attachment("notes\n", filename="notes.txt", disposition="inline")
    content = read_eml(made.as_bytes())
    assert content.text == "Subject: x\n\nbefore the picture\n\nafter it\n\nfooter"
    assert content.warnings == ("the attachment notes.txt is not read; save it as a file to ingest it",)


def test_the_greeting_of_an_html_letter_may_stand_in_its_header():
    body = b"<header>Dear Ms Meier</header><p>Thank you.</p><footer>Regards, Bob</footer>"
    content = read_eml(b"Subject: s\nFrom: a@example.org\nContent-Type: text/html\n\n" + body)
    assert content.text.endswith("Dear Ms Meier\n\nThank you.\n\nRegards, Bob")
