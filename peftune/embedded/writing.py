"""How the data scripts keep splits apart and write them."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def normalized(text: str) -> str:
    """The text without case, punctuation and spacing."""
    return re.sub(r"\W+", " ", text.lower()).strip()


def write_splits(folder: Path, splits: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """One file of JSON lines for each split."""
    folder.mkdir(exist_ok=True)
    for split, rows in splits.items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")
        print(f"{split}: {len(rows)} rows")
