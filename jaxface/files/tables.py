"""Tables that Markdown and a terminal both show well."""

from collections.abc import Sequence


def aligned_table(rows: Sequence[Sequence[str]]) -> str:
    """The rows as a Markdown table whose columns stand in line, the first flush left, the others flush right.

    Args:
        rows: of equal length; the first holds the titles.
    """
    first, *others = (max(len(row[i]) for row in rows) for i in range(len(rows[0])))
    line = ["-" * first, *("-" * (width - 1) + ":" for width in others)]
    return "\n".join(
        f"| {row[0]:<{first}} | " + " | ".join(f"{cell:>{w}}" for cell, w in zip(row[1:], others, strict=True)) + " |"
        for row in (rows[0], line, *rows[1:])
    )
