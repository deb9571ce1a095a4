"""Requests and answers."""

import json
import re
from dataclasses import dataclass, field
from typing import Any

from tests.hub.store import Store


@dataclass(frozen=True)
class Request:
    store: Store
    endpoint: str
    storage: str
    path: str
    parts: list[str]
    """The variable parts of the path."""
    query: dict[str, str]
    headers: dict[str, str]
    """By names in small letters."""
    token: str | None
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Answer:
    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> "Answer":
        kind = {"Content-Type": "application/json"}
        return cls(json.dumps(value).encode(), status, kind | (headers or {}))


def ranged(request: Request, content: bytes, headers: dict[str, str]) -> Answer:
    found = re.fullmatch(r"bytes=(\d+)-", request.headers.get("range", ""))
    start, size = int(found[1]) if found else 0, len(content)
    if not found:
        return Answer(content, headers=headers)
    told = {"Content-Range": f"bytes {start}-{size - 1}/{size}"}
    return Answer(content[start:], 206, headers | told)
