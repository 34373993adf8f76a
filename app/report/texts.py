"""What a report says of each text, where a run was measured on several."""

from awqscope.app.report.contents import Findings
from awqscope.app.report.pieces import Table
from awqscope.app.words.texts import (
    ABOUT_TEXTS,
    BLOCK_COLUMNS,
    TEXT_COLUMNS,
    block_text_rows,
    text_rows,
    write_block_texts,
    write_worst_text,
)


def text_tables(found: Findings) -> list[Table]:
    """Every number by text and model, then what flagged blocks cost in each text; none of a single
    text."""
    numbers = found.numbers
    if numbers is None or len(numbers.texts) < 2:
        return []
    rows = [
        {key: " ".join(part for part in cell if part) for key, cell in row.items()}
        for row in text_rows(numbers, found.record)
    ]
    said = " ".join([write_worst_text(numbers, found.record), ABOUT_TEXTS]).strip()
    tables = [Table(TEXT_COLUMNS, rows, "Every number by text", summary=said)]
    blocks = found.block_texts
    if blocks is not None and blocks.blocks:
        about, lines = write_block_texts(blocks), block_text_rows(blocks)
        tables.append(Table(BLOCK_COLUMNS, lines, "Flagged blocks by text", summary=about))
    return tables
