"""Talking to a registry: names to URLs, tokens and logins, retries with back-off.

Follows distribution-spec 1.1 and the token authentication of docker's registry.
"""

from __future__ import annotations

import base64
import ipaddress
import re
import ssl
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import httpx

from pxeserver.errors import NotFound, PxeServerError, Refused, Unreachable, UsageError
from pxeserver.images.credentials import Login, login
from pxeserver.images.partial import Partial
from pxeserver.images.progress import Progress

T = TypeVar("T")

_RETRIES = (0.5, 1.0, 2.0, 4.0)  # seconds to wait before each further attempt
_CHUNK = 1 << 18
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')
_HUB_HOST = "registry-1.docker.io"
_GOOD = (200, 206)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One place that may have a repository. `registry` is the name that logins are kept under."""

    url: str  # "https://registry-1.docker.io"
    registry: str
    local: bool = False  # on this host or net: plain http is tried, and a refusal is final


@dataclass(frozen=True, slots=True)
class Answer:
    content: bytes
    kind: str


def is_local(registry: str) -> bool:
    """Whether plain http may be tried, as LinuxKit does: this host, *.local, private addresses."""
    host = urlsplit(f"//{registry}").hostname or ""
    if host == "localhost" or host.endswith(".local"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or (address.version == 4 and address.is_private)


def endpoints(registry: str, mirrors: Sequence[str]) -> Iterator[Endpoint]:
    """The mirrors for this registry in their order, then the registry itself."""
    for mirror in mirrors:
        of, url = mirror_of(mirror)
        if of in ("", registry):
            yield Endpoint(url, urlsplit(url).netloc)
    if registry == "docker.io":
        yield Endpoint(f"https://{_HUB_HOST}", registry)
    elif is_local(registry):
        yield Endpoint(f"http://{registry}", registry, local=True)
        yield Endpoint(f"https://{registry}", registry, local=True)
    else:
        yield Endpoint(f"https://{registry}", registry)


def mirror_of(text: str) -> tuple[str, str]:
    """(registry or "" for all, URL) from [REG=]URL; UsageError "mirror-bad"."""
    head, equals, tail = text.partition("=")
    registry, url = (head, tail) if equals and "://" not in head else ("", text)
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc:
        raise UsageError("mirror-bad", f'"{text}" is no mirror', hint="[REGISTRY=]http://HOST or https://HOST")
    if registry in ("index.docker.io", _HUB_HOST):
        registry = "docker.io"
    return registry, url.rstrip("/")


class Http:
    """One client for all downloads of a build; usable from several threads."""

    def __init__(self, progress: Progress, cert_file: Path | None = None) -> None:
        context = ssl.create_default_context()
        if cert_file is not None:
            try:
                context.load_verify_locations(cert_file)
            except OSError as error:
                raise UsageError("cert-file-bad", f"cannot read certificates from {cert_file}: {error}") from None
        timeout = httpx.Timeout(60.0, connect=15.0)
        self._client = httpx.Client(follow_redirects=True, timeout=timeout, verify=context)
        self._client.headers["accept-encoding"] = "identity"  # blobs are compressed already, and counted in bytes
        self._progress = progress
        self._lock = threading.Lock()
        self._tokens: dict[tuple[str, str], str] = {}

    def close(self) -> None:
        self._client.close()

    def manifest(self, endpoint: Endpoint, repository: str, wanted: str, accept: str, limit: int) -> Answer:
        """A manifest by tag or digest, of at most `limit` bytes. NotFound "base-not-found" when it is not there."""

        def get() -> Answer:
            with self._open(endpoint, repository, f"manifests/{wanted}", {"accept": accept}) as answer:
                data = b""
                for piece in answer.iter_bytes(_CHUNK):
                    data += piece
                    if len(data) > limit:
                        raise PxeServerError("oci-malformed", f"the manifest of {repository} has over {limit} bytes")
                return Answer(data, answer.headers.get("content-type", "").partition(";")[0].strip())

        return self._patiently(endpoint, get)

    def blob(self, endpoint: Endpoint, repository: str, digest: str, into: Partial) -> None:
        """Fill `into`; a broken connection is taken up again where it broke."""

        def get() -> None:
            headers = {"range": f"bytes={into.size}-"} if into.size else {}
            with self._open(endpoint, repository, f"blobs/{digest}", headers) as answer:
                start = answer.headers.get("content-range", "").removeprefix("bytes ").partition("-")[0]
                if into.size and not (answer.status_code == 206 and start == str(into.size)):
                    into.restart()  # the server does not continue files
                for piece in answer.iter_bytes():  # as they come: what waits in a buffer is lost with the connection
                    into.write(piece)
            if not into.complete:
                raise httpx.RemoteProtocolError("the connection ended before the blob did")

        if not into.complete:
            self._patiently(endpoint, get)

    def _patiently(self, endpoint: Endpoint, get: Callable[[], T]) -> T:
        """`get()`, again after a pause when the network or the server failed for the moment."""
        for pause in (*_RETRIES, None):
            try:
                return get()
            except (httpx.TransportError, Busy) as error:
                refused = isinstance(error, httpx.ConnectError | httpx.UnsupportedProtocol)
                if pause is None or (refused and endpoint.local):
                    kind = Unreachable if isinstance(error, Busy) else Unanswered
                    raise kind(
                        "registry-unreachable",
                        f"{endpoint.url} does not answer: {error or type(error).__name__}",
                        hint="--source oci:DIR builds without a registry; --mirror names another one",
                    ) from None
                self._progress.say(f"{endpoint.url}: {error or type(error).__name__}; again in {pause:g} s")
                time.sleep(pause)
        raise AssertionError("the last pause is None")

    @contextmanager
    def _open(
        self,
        endpoint: Endpoint,
        repository: str,
        path: str,
        headers: dict[str, str],
        *,
        method: str = "GET",
        content: bytes | None = None,
        good: Collection[int] = _GOOD,
    ) -> Iterator[httpx.Response]:
        """An answer whose status is `good`, and whose body can be read; asks for a token once when one is wanted.

        `path` is below the repository, or a whole URL that the registry gave.
        """
        url = path if "://" in path else f"{endpoint.url}/v2/{repository}/{path}"
        for again in (True, False):
            known = self._tokens.get((endpoint.url, repository))
            full = {**headers, "authorization": known} if known and _same_host(url, endpoint) else headers
            with self._client.stream(method, url, headers=full, content=content) as answer:
                if answer.status_code == 401 and again:
                    challenge = answer.headers.get("www-authenticate", "")
                else:
                    _check(answer, endpoint, repository, path, good)
                    yield answer
                    return
            self._authorise(endpoint, repository, challenge)

    def _authorise(self, endpoint: Endpoint, repository: str, challenge: str) -> None:
        """Answer a challenge (RFC 7235; docker's token specification) and remember the answer."""
        with self._lock:
            kind, _, rest = challenge.partition(" ")
            known = login(endpoint.registry)
            header = ""
            if kind.lower() == "basic" and known:
                header = "Basic " + base64.b64encode(f"{known.user}:{known.secret}".encode()).decode()
            elif kind.lower() == "bearer":
                header = "Bearer " + self._token(endpoint, repository, dict(_CHALLENGE.findall(rest)), known)
            if not header:
                raise _denied(endpoint, repository)
            self._tokens[(endpoint.url, repository)] = header

    def _token(self, endpoint: Endpoint, repository: str, asked: dict[str, str], known: Login | None) -> str:
        realm = asked.get("realm", "")
        if urlsplit(realm).scheme != "https" and not endpoint.url.startswith("http://"):
            raise _denied(endpoint, repository)  # never send a login in the clear because a server says so
        wanted = {"scope": asked.get("scope") or f"repository:{repository}:pull"}
        if asked.get("service"):
            wanted["service"] = asked["service"]
        if known and known.token:
            body = {**wanted, "grant_type": "refresh_token", "refresh_token": known.token, "client_id": "pxeserver"}
            answer = self._client.post(realm, data=body)
        else:
            answer = self._client.get(realm, params=wanted, auth=(known.user, known.secret) if known else None)
        if answer.status_code != 200:
            raise _denied(endpoint, repository)
        try:
            body = answer.json()
            return str(body.get("token") or body["access_token"])
        except (ValueError, KeyError, AttributeError):
            raise Unreachable("registry-unreachable", f"{realm} sent no token for {repository}") from None


class Unanswered(Unreachable):
    """Not a word of HTTP came back: another endpoint's answer tells more."""


class Busy(Exception):
    """The server answers, but not now: 429 or 5xx."""


def _same_host(url: str, endpoint: Endpoint) -> bool:
    """Logins are for the registry itself, not for where it may send us."""
    return urlsplit(url)[:2] == urlsplit(endpoint.url)[:2]


def _check(answer: httpx.Response, endpoint: Endpoint, repository: str, path: str, good: Collection[int]) -> None:
    status = answer.status_code
    if status in good:
        return
    reading = answer.request.method in ("GET", "HEAD")
    if reading and status in (404, 416):
        raise NotFound("base-not-found", f'no base image "{repository}" ({path}) at {endpoint.url}')
    if status in (401, 403):
        raise _denied(endpoint, repository, "read" if reading else "write to")
    if status == 429 or status >= 500:
        raise Busy(f"it answers {status}")
    # servers that expect TLS say 400 to plain http: that is no answer yet
    kind = Unanswered if status == 400 and endpoint.local else Unreachable
    raise kind("registry-unreachable", f"{endpoint.url} answers {status} for {repository}")


def _denied(endpoint: Endpoint, repository: str, to_do: str = "read") -> Refused:
    return Refused(
        "registry-denied",
        f"{endpoint.url} does not let us {to_do} {repository}",
        hint=f"docker login {endpoint.registry}; a hub also says so when there is no such image",
    )
