"""Numbers, tables and blocks as Markdown."""

import re
from collections.abc import Mapping
from typing import Any


def number(value: Any) -> str:
    """A measure, with its interval where it has one."""
    if value is None:
        return "none"
    if isinstance(value, Mapping):
        return f"{value['value']:.4f} [{value['low']:.4f}, {value['high']:.4f}]"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4f}"


def table(header: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    """One line for the header and for each row."""
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def fenced(text: str, language: str) -> str:
    """A code block whose fence is longer than any run of backticks in `text`."""
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall("`+", text)), 0)
    return f"{fence}{language}\n{text}{fence}"
