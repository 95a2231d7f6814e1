"""A real registry (Debian's docker-registry) on loopback, filled by the test; and a proxy before it that misbehaves."""

from __future__ import annotations

import base64
import contextlib
import datetime
import ipaddress
import json
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

from pxeserver.images import oci
from pxeserver.images.layout import Layout
from pxeserver.images.oci import Descriptor

USER, PASSWORD = "alice", "wonder"
HTPASSWD = f"{USER}:$2b$05$abcdefghijklmnopqrstuuLZNkQ1VL/QsuI/EN8Qq4Ia5232KBp7m\n"


class Registry:
    """`url` is http://127.0.0.1:PORT; `root` is where it keeps its files."""

    def __init__(self, folder: Path, auth: dict[str, Any] | None = None, tls: dict[str, str] | None = None) -> None:
        self.root = folder / "registry"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.host = f"127.0.0.1:{self.port}"
        self._auth, self._tls = auth, tls
        folder.mkdir(parents=True, exist_ok=True)
        self._config = folder / "registry.json"
        self._log = (folder / "registry.log").open("ab")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        config: dict[str, Any] = {
            "version": 0.1,
            "log": {"level": "error"},
            "storage": {"filesystem": {"rootdirectory": str(self.root)}},
            "http": {"addr": self.host, **({"tls": self._tls} if self._tls else {})},
        }
        if self._auth:
            config["auth"] = self._auth
        self._config.write_text(json.dumps(config))
        command = ["docker-registry", "serve", str(self._config)]
        self._process = subprocess.Popen(command, stdout=self._log, stderr=self._log)
        for _ in range(200):
            with contextlib.suppress(httpx.HTTPError):
                httpx.get(f"{self.url}/v2/")
                return
            time.sleep(0.05)
        raise AssertionError((self._config.parent / "registry.log").read_text())

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None

    def __enter__(self) -> Registry:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._log.close()

    def push(self, layout: Layout, ref: str, repository: str, tag: str) -> None:
        """Copy `ref` of a layout to REPOSITORY:TAG, with everything that it reaches."""
        entry = layout.named(ref)[-1]
        self._manifest(layout, entry, repository, tag)

    def _manifest(self, layout: Layout, entry: Descriptor, repository: str, name: str) -> None:
        body = layout.read_json(entry.digest)
        if entry.media_type in oci.INDEXES:
            for child in map(oci.descriptor, body["manifests"]):
                self._manifest(layout, child, repository, child.digest)
        else:
            for blob in layout.blobs_of(entry):
                self._blob(layout, blob, repository)
        url = f"{self.url}/v2/{repository}/manifests/{name}"
        content = layout.read_blob(entry.digest)
        answer = httpx.put(url, content=content, headers={"content-type": entry.media_type})
        assert answer.status_code == 201, answer.text

    def _blob(self, layout: Layout, blob: Descriptor, repository: str) -> None:
        where = httpx.post(f"{self.url}/v2/{repository}/blobs/uploads/").headers["location"]
        answer = httpx.put(
            where, params={"digest": blob.digest, **_query(where)}, content=layout.read_blob(blob.digest)
        )
        assert answer.status_code == 201, answer.text


def _query(url: str) -> dict[str, str]:
    return {k: v[0] for k, v in parse_qs(urlsplit(url).query).items()}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Front(ThreadingHTTPServer):
    """Passes GETs on to a registry; `misbehave(path, attempt)` gives an HTTP status, and bytes after which to cut."""

    daemon_threads = True

    def __init__(self, registry: Registry, misbehave: Callable[[str, int], tuple[int, int]]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.registry, self.misbehave = registry, misbehave
        self.asked: dict[str, list[str]] = {}  # path -> the Range of each request
        self.sent = 0
        self.url = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> Front:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Front

    def do_GET(self) -> None:
        asked = self.server.asked.setdefault(self.path, [])
        asked.append(self.headers.get("range", ""))
        status, cut = self.server.misbehave(self.path, len(asked))
        if status:
            self.send_response(status)
            self.end_headers()
            return
        headers = {k: v for k, v in self.headers.items() if k.lower() in ("range", "accept", "authorization")}
        answer = httpx.get(self.server.registry.url + self.path, headers=headers)
        self.send_response(answer.status_code)
        for key in ("content-type", "content-length", "content-range"):
            if key in answer.headers:
                self.send_header(key, answer.headers[key])
        self.end_headers()
        data = answer.content[:cut] if cut else answer.content
        self.server.sent += len(data)
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


def certificate(folder: Path) -> dict[str, str]:
    """A certificate for 127.0.0.1 that signs itself: the registry's tls section; "certificate" is also its CA file."""
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    cert = (
        x509.CertificateBuilder(name, name, key.public_key(), 2)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, private = folder / "tls.pem", folder / "tls.key"
    pem.write_bytes(cert.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.TraditionalOpenSSL
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    return {"certificate": str(pem), "key": str(private)}


@contextlib.contextmanager
def token_server(folder: Path) -> Iterator[tuple[dict[str, Any], list[dict[str, str]]]]:
    """(auth section of the registry's config, list of the token requests seen): signs tokens for USER and for all."""
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "token")])
    now = datetime.datetime.now(datetime.UTC)
    cert = (
        x509.CertificateBuilder(name, name, key.public_key(), 1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    folder.mkdir(parents=True, exist_ok=True)
    bundle = folder / "token.pem"
    bundle.write_bytes(cert.public_bytes(serialization.Encoding.PEM))
    seen: list[dict[str, str]] = []

    class Tokens(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = _query(self.path)
            seen.append({**asked, "authorization": self.headers.get("authorization", "")})
            kind, repository, actions = asked["scope"].split(":")
            private = repository.startswith("private/")
            login = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
            allowed = not private or self.headers.get("authorization") == login
            access = [{"type": kind, "name": repository, "actions": actions.split(",")}] if allowed else []
            claims = {
                "iss": "tests", "sub": USER, "aud": asked["service"], "jti": "1", "access": access,
                "nbf": int(time.time()) - 60, "iat": int(time.time()), "exp": int(time.time()) + 600,
            }  # fmt: skip
            der = base64.b64encode(cert.public_bytes(serialization.Encoding.DER)).decode()
            parts = [_b64(json.dumps(p).encode()) for p in ({"typ": "JWT", "alg": "RS256", "x5c": [der]}, claims)]
            signature = key.sign(".".join(parts).encode(), padding.PKCS1v15(), hashes.SHA256())
            body = json.dumps({"token": ".".join((*parts, _b64(signature)))}).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Tokens) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        realm = f"http://127.0.0.1:{server.server_port}/token"
        section = {"realm": realm, "service": "registry", "issuer": "tests", "rootcertbundle": str(bundle)}
        try:
            yield {"token": section}, seen
        finally:
            server.shutdown()


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
