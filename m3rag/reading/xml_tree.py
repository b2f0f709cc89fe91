"""XML of unknown origin: a tree or a stream of elements, never a declaration, an entity or a file beside it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import NoReturn, cast
from xml.etree.ElementTree import Element, ParseError, XMLParser, XMLPullParser
from xml.parsers import expat

from m3rag.errors import ReadError
from m3rag.reading.archive import Archive


def local(element: Element) -> str:
    """The element's name without its namespace, which differs between editions of a format."""
    return element.tag.rpartition("}")[2]


def attribute(element: Element, name: str) -> str | None:
    """The value of an attribute in whatever namespace; None where there is none."""
    for key, value in element.attrib.items():
        if key.rpartition("}")[2] == name:
            return value
    return None


def child(element: Element, *names: str) -> Element | None:
    """The descendant along a path of local names, the first at each step; None where it ends."""
    found: Element | None = element
    for name in names:
        found = next((c for c in found if local(c) == name), None) if found is not None else None
    return found


def parse_part(archive: Archive, part: str, *, doctype: bool = False) -> Element:
    """Parse a part of an archive at once.

    Args:
        archive: Where it is.
        part: Its name.
        doctype: Let a bare `<!DOCTYPE name PUBLIC ...>` pass, which is not followed; its internal
            subset, the place of entities, is refused in any case.

    Returns:
        The root element.

    Raises:
        ReadError: The part is missing, larger than 64 MiB, not well-formed, or has declarations.
    """
    parser = XMLParser()
    try:
        for piece in guarded([archive.read(part)], part=part, doctype=doctype):
            parser.feed(piece)
        root: Element = parser.close()
    except (ParseError, ValueError) as error:
        raise _malformed(part, error) from error
    return root


def stream_part(archive: Archive, part: str, *, within: Collection[str]) -> Iterator[Element]:
    """Parse a part piece by piece, so that its size is no matter.

    Args:
        archive: Where it is.
        part: Its name.
        within: Names (`{namespace}name`) of the element whose children are wanted; the outermost
            and first of them counts.

    Yields:
        Each child once it is complete; it is cleared when the next one is asked for.

    Raises:
        ReadError: As for `parse_part`, but for the size.
    """
    parser: XMLPullParser[Element] = XMLPullParser(events=("start", "end"))
    container: Element | None = None
    depth = inside = 0
    for piece in guarded(archive.chunks(part), part=part):
        for event, element in _events(parser, piece, part):
            depth += 1 if event == "start" else -1
            if container is None:
                if event == "start" and element.tag in within:
                    container, inside = element, depth
            elif event == "end" and depth == inside:
                yield element
                container.clear()
            elif depth < inside:
                return
    try:
        parser.close()
    except ParseError as error:
        raise _malformed(part, error) from error


def _events(parser: XMLPullParser[Element], piece: bytes, part: str) -> Iterator[tuple[str, Element]]:
    try:
        parser.feed(piece)
        # Not well-formed is an event too, after those before it.
        yield from cast("Iterator[tuple[str, Element]]", parser.read_events())
    except (ParseError, ValueError) as error:
        raise _malformed(part, error) from error


def guarded(pieces: Iterable[bytes], *, part: str, doctype: bool = False) -> Iterator[bytes]:
    """Hand on the bytes of an XML file unless it declares anything before its first element.

    Args:
        pieces: The file's bytes.
        part: Its name, for the message.
        doctype: As for `parse_part`.

    Yields:
        The same pieces.

    Raises:
        ReadError: There is a document type declaration.
        MalformedError: What comes first is not XML.
    """
    guard = expat.ParserCreate()

    def declared(_name: str, _system: str | None, _public: str | None, internal: int) -> None:
        if internal or not doctype:
            raise ReadError(
                f"declares a document type or entities in {part}, which no program writes there: not opened; "
                "save it again with the program that made it"
            )

    def begun(_name: str, _attributes: dict[str, str]) -> NoReturn:
        raise _BegunError

    guard.StartDoctypeDeclHandler = declared
    guard.StartElementHandler = begun
    in_prolog = True
    for piece in pieces:
        if in_prolog:
            try:
                guard.Parse(piece, False)
            except _BegunError:
                in_prolog = False
            except (expat.ExpatError, LookupError, ValueError) as error:  # the latter of unknown encodings
                raise _malformed(part, error) from error
        yield piece


class MalformedError(ReadError):
    """What should be XML is not."""


class _BegunError(Exception):
    """The first element was reached: no declaration can follow."""


def _malformed(part: str, error: Exception) -> MalformedError:
    return MalformedError(f"is damaged: {part} is not well-formed XML ({error}); save it again with its own program")
