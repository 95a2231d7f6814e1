"""Putting blobs and manifests into a registry: in chunks, taken up again where a broken upload ended.

Follows distribution-spec 1.1, "Pushing a blob in chunks".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO
from urllib.parse import urljoin

import httpx

from pxeserver.errors import NotFound, Refused
from pxeserver.images.oci import Descriptor
from pxeserver.images.registryhttp import Busy, Endpoint, Http

_CHUNK = 4 << 20
_RANGE = re.compile(r"(?:bytes=)?0-(\d+)")
_UNSURE = 416  # "that is not where the upload stands"


@dataclass
class _Upload:
    """Where a blob's upload stands. `unsure`: the last chunk may or may not have arrived."""

    location: str = ""
    sent: int = 0
    chunk: int = _CHUNK
    unsure: bool = False

    def moved(self, answer: httpx.Response) -> None:
        """Each answer says where to go on."""
        self.location = urljoin(str(answer.request.url), answer.headers.get("location", self.location))


class PushHttp(Http):
    """Http that writes too. Errors besides those of reading: Refused "registry-denied", "registry-refused"."""

    def has(self, endpoint: Endpoint, repository: str, digest: str) -> bool:
        """Whether the registry has the blob in this repository."""

        def head() -> bool:
            with self._open(endpoint, repository, f"blobs/{digest}", {}, method="HEAD", good=(200, 404)) as answer:
                return answer.status_code == 200

        return self._patiently(endpoint, head)

    def upload(
        self, endpoint: Endpoint, repository: str, blob: Descriptor, file: BinaryIO, advance: Callable[[int], None]
    ) -> None:
        """Send the blob; `advance` hears of the bytes that the registry has confirmed."""
        state = _Upload()
        while state.sent < blob.size or not state.location:
            before = state.sent
            self._patiently(endpoint, lambda: self._chunk(endpoint, repository, state, file, blob.size))
            advance(state.sent - before)

        def finish() -> None:
            url = httpx.URL(state.location).copy_merge_params({"digest": blob.digest})
            self._send(endpoint, repository, "PUT", str(url), good=(201, 204))

        self._patiently(endpoint, finish)

    def _chunk(self, endpoint: Endpoint, repository: str, state: _Upload, file: BinaryIO, size: int) -> None:
        """The next chunk, after finding out where a failed one left the upload."""
        if state.unsure:
            self._ask(endpoint, repository, state)
        if not state.location:
            answer = self._send(endpoint, repository, "POST", "blobs/uploads/", good=(202,))
            state.moved(answer)
            state.sent = 0
            state.chunk = max(_CHUNK, int(answer.headers.get("oci-chunk-min-length") or 0))
        if state.sent >= size:
            return
        file.seek(state.sent)
        data = file.read(state.chunk)
        headers = {
            "content-type": "application/octet-stream",
            "content-range": f"{state.sent}-{state.sent + len(data) - 1}",
        }
        state.unsure = True
        answer = self._send(endpoint, repository, "PATCH", state.location, headers, data, good=(201, 202, 204, _UNSURE))
        if answer.status_code == _UNSURE:
            raise Busy("it has lost count of the upload")
        state.unsure = False
        state.moved(answer)
        state.sent += len(data)

    def _ask(self, endpoint: Endpoint, repository: str, state: _Upload) -> None:
        """How far the upload has come; from the beginning when the registry does not know it any more."""
        known = None
        try:
            answer = self._send(endpoint, repository, "GET", state.location, good=(204,))
            known = _RANGE.fullmatch(answer.headers.get("range", ""))
            state.moved(answer)
        except NotFound:
            pass
        if known and known[1] != "0":
            state.sent = int(known[1]) + 1
        else:  # "0-0" is said of an upload without a byte: begin anew
            state.location, state.sent = "", 0
        state.unsure = False

    def manifest_to(self, endpoint: Endpoint, repository: str, tag: str, kind: str, raw: bytes) -> None:
        """Name a manifest, all of whose blobs are there."""
        headers = {"content-type": kind}
        self._patiently(
            endpoint, lambda: self._send(endpoint, repository, "PUT", f"manifests/{tag}", headers, raw, good=(201,))
        )

    def _send(
        self,
        endpoint: Endpoint,
        repository: str,
        method: str,
        path: str,
        headers: dict[str, str] | None = None,
        content: bytes | None = None,
        *,
        good: tuple[int, ...],
    ) -> httpx.Response:
        """The answer, read; the registry's own words when it refuses what we send."""
        refusals = (400, 404, 405, 413) if method != "GET" else ()
        every = (*good, *refusals)
        with self._open(
            endpoint, repository, path, headers or {}, method=method, content=content, good=every
        ) as answer:
            answer.read()
        if answer.status_code in refusals and answer.status_code not in good:
            raise Refused(
                "registry-refused",
                f"{endpoint.url} refuses {repository}: {_reason(answer)}",
                hint="it may not take artifacts, or no more data",
            )
        return answer


def _reason(answer: httpx.Response) -> str:
    try:
        first = answer.json()["errors"][0]
        return f"{first.get('message') or first['code']} ({answer.status_code})"
    except (ValueError, LookupError, TypeError, AttributeError):
        return f"it answers {answer.status_code}"
