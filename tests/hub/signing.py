"""Addresses of the storage, which is another host and takes a signature in place of a token."""

import hashlib
import hmac

from tests.hub.messages import Request
from tests.hub.store import Refused

SIGNING_KEY = b"key of the storage"


def signature(path: str) -> str:
    """What the storage's addresses are signed with."""
    return hmac.new(SIGNING_KEY, path.encode(), hashlib.sha256).hexdigest()


def signed(request: Request, path: str) -> str:
    return f"{request.storage}{path}?X-Amz-Signature={signature(path)}"


def check_signed(request: Request) -> None:
    if request.query.get("X-Amz-Signature") != signature(request.path):
        raise Refused(403, "SignatureDoesNotMatch")
    if request.token is not None:
        raise Refused(400, "Only one auth mechanism allowed")
