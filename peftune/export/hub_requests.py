"""Requests to the Hub that wait for an answer, but not for ever, and whose errors keep secrets."""

import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from huggingface_hub import HfApi, get_session, get_token
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HTTPError, OfflineModeIsEnabled

from peftune.errors import HubError

SCHEME = "hub:"
ANSWER_S = 300.0
"""Seconds without a byte after which a request has failed; the client itself would wait for ever."""
LONGEST_REASON = 400
# What the client raises: the disk and the network, the Hub's refusals, an upload in a thread or in
# Xet, and an answer that is not in the Hub's protocol.
FAILURES = (OSError, HTTPError, RuntimeError, ValueError, KeyError)
# They log the addresses of uploads and downloads, and whoever has a signed address may use it.
CLIENT, BELOW = "huggingface_hub", ("httpx", "httpx2", "httpcore", "httpcore2")
SIGNED = re.compile(r"(https?://[^\s?'\"<>]+)\?[^\s'\"<>]*")
TOKEN = re.compile(r"\bhf_\w{16,}")
WAYS_OUT = {
    401: "Set HF_TOKEN to a valid token, or run `hf auth login`.",
    402: "Free space or extend the plan of the account.",
    403: "Use a token that may write there.",
    404: "Check the name, and that the token may see it.",
    409: "Something else is at work there; wait for its end.",
    412: "Something else has committed meanwhile.",
    413: "Free space or extend the plan of the account.",
    429: "Too many requests; wait a few minutes.",
}


def hub_api() -> HfApi:
    """The client for the server that HF_ENDPOINT names now, else for the public Hub.

    The token is the one that huggingface_hub finds: HF_TOKEN, or that of `hf auth login`.
    """
    return HfApi(endpoint=os.environ.get("HF_ENDPOINT", "").rstrip("/") or None)


@contextmanager
def asking(
    failed: Callable[[str], HubError], say: Callable[[str], None] | None = None
) -> Iterator[None]:
    """Inside, what the client raises becomes the HubError that `failed` makes of its reason.

    The client's warnings, such as how long it waits before it tries again, go to `say`.
    The error's cause is cut off: it may hold a signed address, and tracebacks are kept in logs.
    """
    client = get_session()
    waiting, client.timeout = client.timeout, ANSWER_S
    try:
        with _without_secrets(say):
            yield
    except FAILURES as error:
        raise failed(reason_of(error)) from None
    finally:
        client.timeout = waiting


@contextmanager
def _without_secrets(say: Callable[[str], None] | None) -> Iterator[None]:
    """Inside, the client logs to `say` alone, and what is below it only errors."""
    client, below = logging.getLogger(CLIENT), [logging.getLogger(name) for name in BELOW]
    handlers, propagate = client.handlers, client.propagate
    levels = [logger.level for logger in below]
    client.handlers = [logging.NullHandler() if say is None else _Warnings(say)]
    client.propagate = False
    for logger in below:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        client.handlers, client.propagate = handlers, propagate
        for logger, level in zip(below, levels, strict=True):
            logger.setLevel(level)


class _Warnings(logging.Handler):
    """Tells warnings, without what gives access."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self.say = say

    def emit(self, record: logging.LogRecord) -> None:
        self.say(_cleared(record.getMessage()))


def reason_of(error: BaseException) -> str:
    """What went wrong as one sentence or two, without token and without signed addresses."""
    if isinstance(error, HfHubHTTPError):
        return _refusal(error)
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set. Unset it."
    if isinstance(error.__cause__, FAILURES):
        inner = reason_of(error.__cause__)
        # The client's own errors of files that it does not find in its cache say less than the cause.
        return inner if isinstance(error, OSError) else f"{_cleared(str(error))} {inner}"
    if isinstance(error, HTTPError):
        return _cleared(f"the connection failed: {type(error).__name__} {error}")
    if isinstance(error, KeyError):
        return _cleared(f"the answer is not one of the Hub: {error} is missing")
    return _cleared(str(error) or type(error).__name__)


def _refusal(error: HfHubHTTPError) -> str:
    status = error.response.status_code
    what = "is gated" if isinstance(error, GatedRepoError) else f"answers {status}"
    told = f": {_cleared(error.server_message)}" if _is_of_the_hub(error) else "."
    return f"The Hub {what}{told} {WAYS_OUT.get(status, '')}".rstrip()


def _is_of_the_hub(error: HfHubHTTPError) -> bool:
    """Whether it says why in the Hub's words; a page of a storage server repeats what was signed."""
    headers = error.response.headers
    is_json = "json" in headers.get("Content-Type", "")
    return bool(error.server_message) and (is_json or "X-Error-Message" in headers)


def _cleared(text: str | None) -> str:
    """One line that ends as a sentence, without what gives access."""
    line = " ".join((text or "").split())
    token = get_token()
    line = line.replace(token, "TOKEN") if token else line
    line = TOKEN.sub("TOKEN", SIGNED.sub(r"\1", line))[:LONGEST_REASON].rstrip()
    return line if line.endswith((".", "!", "?")) else f"{line}."
