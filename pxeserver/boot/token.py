"""Boot tokens: who boots what, signed, in 62 characters.

46 bytes (boot 8, MAC 6, image 16, revision 4, HMAC-SHA256 cut to 12) as base64url without padding, so that
`http://255.255.255.255:65535/boot/<token>/script.ipxe` fits the 127 bytes of a DHCP header's file field. A token needs
no record: any server that has the key honours it.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from dataclasses import dataclass
from functools import lru_cache

from pxeserver.mac import Mac, mac_from_bytes, mac_to_bytes
from pxeserver.model import Digest

LENGTH = 62
_BODY = 34
_SIGNATURE = 12
_NO_IMAGE = bytes(16)
_LAST = frozenset("AQgw")  # 62 characters hold 4 bits more than 46 bytes: those are 0


@dataclass(frozen=True, slots=True)
class Token:
    """`boot`: 16 hex digits. `image`: the first 32 hex digits of the image's digest, "" when none was bound yet."""

    boot: str
    mac: Mac
    image: str = ""
    revision: int = 0


def image_prefix(digest: Digest) -> str:
    """What a token carries of an image's digest; "" for no image."""
    return digest.removeprefix("sha256:")[:32]


def seal(key: bytes, token: Token) -> str:
    """The 62 characters. ValueError if a field has not its size: that is a fault of the caller, not of a packet."""
    image = bytes.fromhex(token.image) if token.image else _NO_IMAGE
    body = bytes.fromhex(token.boot) + mac_to_bytes(token.mac) + image + token.revision.to_bytes(4, "big")
    if len(body) != _BODY:
        raise ValueError(f"token fields make {len(body)} bytes, not {_BODY}")
    return base64.urlsafe_b64encode(body + _sign(key, body)).rstrip(b"=").decode("ascii")


@lru_cache(maxsize=16384)  # a boot shows its token with each of its requests
def open(key: bytes, text: str) -> Token | None:
    """The token that `seal` made with this key, None for anything else; the signature is compared in constant time."""
    if len(text) != LENGTH:
        return None
    try:
        raw = base64.b64decode(text.encode("ascii") + b"==", altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError):
        return None
    body, signature = raw[:_BODY], raw[_BODY:]
    if not hmac.compare_digest(_sign(key, body), signature):
        return None
    if text[-1] not in _LAST:
        return None  # spare bits set: one token, one spelling
    image = body[14:30]
    return Token(
        boot=body[:8].hex(),
        mac=mac_from_bytes(body[8:14]),
        image="" if image == _NO_IMAGE else image.hex(),
        revision=int.from_bytes(body[30:], "big"),
    )


def _sign(key: bytes, body: bytes) -> bytes:
    return hmac.digest(key, body, "sha256")[:_SIGNATURE]
