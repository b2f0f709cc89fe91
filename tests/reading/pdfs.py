"""Small PDFs written by hand, so that tests need no file of anyone's."""


def pdf(*pages, title=None, entries=b"", count=None, meaning=None):
    """A PDF whose pages show these lines in Helvetica; None for a page with only a drawn line, "" for a blank one.

    `entries` are more of each page's dictionary, `count` is how many pages the file says it has, `meaning` what
    letters stand for, by letter.
    """
    objects = [b"<</Type/Catalog/Pages 2 0 R>>", b"", b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>"]
    if meaning is not None:
        objects[2] = b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica/ToUnicode 4 0 R>>"
        objects.append(b"<</Length %d>>stream\n%s\nendstream" % (len(to_unicode(meaning)), to_unicode(meaning)))
    kids = []
    for lines in pages:
        drawn = b"0 0 m 100 100 l S" if lines is None else b"" if not lines else shown(lines)
        objects.append(b"<</Length %d>>stream\n%s\nendstream" % (len(drawn), drawn))
        objects.append(
            b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Contents %d 0 R/Resources<</Font<</F 3 0 R>>>>%s>>"
            % (len(objects), entries)
        )
        kids.append(b"%d 0 R" % len(objects))
    objects[1] = b"<</Type/Pages/Count %d/Kids[%s]>>" % (len(kids) if count is None else count, b" ".join(kids))
    info = b""
    if title is not None:
        objects.append(b"<</Title(%s)>>" % title.encode("latin-1"))
        info = b"/Info %d 0 R" % len(objects)
    out, offsets = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += b"%d 0 obj" % number + body + b"endobj\n"
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    count = len(objects) + 1
    return out + b"xref\n0 %d\n0000000000 65535 f \n%strailer<</Size %d/Root 1 0 R%s>>\nstartxref\n%d\n%%%%EOF" % (
        count,
        table,
        count,
        info,
        len(out),
    )


def to_unicode(meaning):
    pairs = "".join(
        f"<{letter.encode('latin-1').hex()}> <{means.encode('utf-16-be').hex()}>" for letter, means in meaning.items()
    )
    head = b"begincmap 1 begincodespacerange <00> <FF> endcodespacerange "
    return head + b"%d beginbfchar %s endbfchar endcmap" % (len(meaning), pairs.encode("ascii"))


def shown(lines):
    rows = b" ".join(b"(%s)Tj 0 -20 Td" % line.encode("latin-1") for line in lines.split("\n"))
    return b"BT /F 12 Tf 50 700 Td " + rows + b" ET"
