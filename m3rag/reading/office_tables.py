"""Tables of DOCX and ODT: most hold rows, some lay out the page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from xml.etree.ElementTree import Element

from m3rag.reading.layout import Layout


def lay_out_table(
    rows: Iterable[tuple[Element, Sequence[Element]]],
    layout: Layout,
    *,
    cell: Callable[[Element], None],
    is_block: Callable[[Element], bool],
    merged: Callable[[Element], Element] = lambda one: one,
    between: Callable[[], None],
) -> None:
    """Lay out a table, its rows as `a | b`.

    A row of a single cell, or one that holds a table or a heading, lays out the page: its cells
    follow each other as blocks.

    Args:
        rows: Each row and its cells.
        layout: Where to.
        cell: Lays out what is in a cell.
        is_block: Whether an element anywhere in a row is a table or a heading.
        merged: The cell above that a cell goes on with, in a row that is a line; itself for any other.
        between: Lays out what hangs on the rows so far, before cells that are blocks.
    """
    layout.end_block(2)
    for row, cells in rows:
        if len(cells) == 1 or any(map(is_block, row.iter())):
            between()
            for one in cells:
                layout.end_block(2)
                cell(one)
            layout.end_block(2)
            continue
        layout.open_row()
        for one in cells:
            layout.open_cell()
            cell(merged(one))
        layout.close_row()
    layout.end_block(2)
