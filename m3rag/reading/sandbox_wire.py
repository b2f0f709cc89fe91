"""How the reading process and its parent speak: messages of JSON, each after its length.

Not pickle: what a hostile file has made of the child must not be able to run anything in the parent.
"""

from __future__ import annotations

import dataclasses
import json
import types
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import Any, BinaryIO, TypeVar, Union, get_args, get_origin, get_type_hints

from m3rag.errors import InputError
from m3rag.reading.formats import FORMATS, Format
from m3rag.types import Document

LENGTH = 8  # bytes before each message: its length, big-endian

T = TypeVar("T")


def pack(value: Mapping[str, Any]) -> bytes:
    """A message as bytes, without its length; lone surrogates, as in odd file names, survive."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")


def unpack(message: bytes) -> dict[str, Any]:
    """The other way."""
    value: dict[str, Any] = json.loads(message.decode("utf-8", "surrogatepass"))
    return value


def send(stream: BinaryIO, message: bytes) -> None:
    """Write a message with its length."""
    stream.write(len(message).to_bytes(LENGTH, "big"))
    stream.write(message)
    stream.flush()


def receive(stream: BinaryIO, *, most: int) -> bytes:
    """Read a message.

    Args:
        stream: Where the other side writes.
        most: Bytes that a message may have.

    Raises:
        EOFError: The other side is gone.
        OverflowError: The message is longer.
    """
    length = int.from_bytes(_exactly(stream, LENGTH), "big")
    if length > most:
        raise OverflowError(f"a message of {length:,} bytes, more than {most:,}")
    return _exactly(stream, length)


def _exactly(stream: BinaryIO, count: int) -> bytes:
    parts = bytearray()
    while len(parts) < count:
        part = stream.read(min(count - len(parts), 1 << 20))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)


def document_to_wire(document: Document) -> dict[str, Any]:
    """A document as JSON values."""
    return dataclasses.asdict(document)


def document_from_wire(value: Any) -> Document:
    """The document again, equal to the one that was sent.

    Raises:
        TypeError, ValueError, KeyError: It is none; the child is not to be trusted.
    """
    document: Document = _restored(Document, value)
    return document


def formats_to_wire(formats: Sequence[Format]) -> list[dict[str, Any]]:
    """The formats that are not built in, their readers by name.

    Raises:
        InputError: A reader is none that another process can import.
    """
    return [_format_to_wire(one) for one in formats if one not in FORMATS]


def _format_to_wire(one: Format) -> dict[str, Any]:
    module, name = getattr(one.reader, "__module__", "__main__"), getattr(one.reader, "__qualname__", "<instance>")
    if module == "__main__" or "<" in name:
        raise InputError(
            f"the reader of the format {one.name!r} is {module}.{name}, which the process that reads files cannot "
            "import: make it a function of a module of its own"
        )
    fields = {field.name: getattr(one, field.name) for field in dataclasses.fields(one)}
    return {**fields, "reader": [module, name], "magic": one.magic.hex()}


def format_from_wire(value: dict[str, Any]) -> Format:
    """The format again, its reader imported."""
    module, name = value["reader"]
    reader: Any = import_module(module)
    for part in name.split("."):
        reader = getattr(reader, part)
    lists = {key: tuple(each) for key, each in value.items() if isinstance(each, list)}
    return Format(**{**value, **lists, "reader": reader, "magic": bytes.fromhex(value["magic"])})


def _restored(kind: Any, value: Any) -> Any:
    """JSON values as the dataclasses, tuples and scalars that a type hint promises."""
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        kinds = [one for one in get_args(kind) if one is not type(None)]
        return None if value is None else _restored(kinds[0], value)
    if origin is tuple:
        inner = get_args(kind)
        if not isinstance(value, list):
            raise TypeError(f"a list was promised, got {type(value).__name__}")
        if len(inner) == 2 and inner[1] is Ellipsis:
            return tuple(_restored(inner[0], one) for one in value)
        return tuple(_restored(each, one) for each, one in zip(inner, value, strict=True))
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        hints = _hints(kind)
        return kind(**{name: _restored(hint, value[name]) for name, hint in hints.items()})
    if kind is float and isinstance(value, int):
        return float(value)
    if isinstance(kind, type) and not isinstance(value, kind):
        raise TypeError(f"{kind.__name__} was promised, got {type(value).__name__}")
    return value


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)
