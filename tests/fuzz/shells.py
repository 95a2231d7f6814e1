"""Fuzz targets that go through the servers' own ways: datagrams to the TFTP server, requests to the boot HTTP routes.

Each has one small site, made when it is first needed, and forgets between inputs whatever an input began.
"""

from __future__ import annotations

import functools
import inspect
import os
import socket
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pxeserver.boot import token as tokens
from pxeserver.boot.quirks import load_quirks
from pxeserver.config import Config, Server, Tftp
from pxeserver.model import Assignment, Event, FleetView, Machine
from pxeserver.serve import httpwire, loaderfiles, udp
from pxeserver.serve.express import ExpressLoop
from pxeserver.serve.http import Request, Sent
from pxeserver.serve.recorder import Recorder
from pxeserver.serve.routes import BootRoutes
from pxeserver.serve.site import Site
from pxeserver.serve.tftp import TftpServer
from pxeserver.wire import tftp

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from fleetlab import build  # noqa: E402 - this folder's programs run without pytest's paths

MAC, FORGED = "52:54:00:00:00:01", "52:54:00:00:00:09"
KEY = bytes(32)
LOADER = bytes(range(256)) * 11  # less than three blocks of 1468 bytes, six of 512
OURS, NEW = ("127.0.0.1", 0), 0xFF
_STATUSES = frozenset({200, 204, 400, 404, 405})


@functools.cache
def folder() -> Path:
    """A data folder with an image and a loader; it goes when the program ends."""
    made = Path(_keep.name)
    (made / "loaders" / "sub").mkdir(parents=True)
    (made / "loaders" / "snponly.efi").write_bytes(LOADER)
    (made / "secret").write_bytes(b"not to be served")
    (made / "loaders" / "link.efi").symlink_to(made / "secret")
    build(made)
    return made


_keep = tempfile.TemporaryDirectory(prefix="fuzz-")


# --- TFTP: a datagram to the listening port, or to the port of the transfer that the input began ---


class _Tftp:
    """The server on a loopback port, and its client's socket."""

    def __init__(self) -> None:
        self.loop = ExpressLoop()
        self.names: list[str] = []
        self.server = TftpServer(Tftp(sessions_per_peer=4), self.resolve, lambda outcome: None)
        listening = udp.listen(0, what="tftp", address="127.0.0.1")
        self.port: int = listening.getsockname()[1]
        self.loop.run_until_complete(self._start(listening))

    async def _start(self, listening: socket.socket) -> None:
        self.server.start(listening)

    def resolve(self, path: str, arrived: udp.Datagram) -> Path | None:
        assert ".." not in path.split("/") and not path.startswith("/"), "a name that climbs out"
        self.names.append(path)
        return loaderfiles.find_loader(folder() / "loaders", path)

    def turn(self) -> None:
        """What is in the sockets now is read, and answered."""
        self.loop.call_soon(self.loop.call_soon, self.loop.call_soon, self.loop.stop)
        self.loop.run_forever()


@functools.cache
def _tftp() -> _Tftp:
    return _Tftp()


def datagrams(data: bytes) -> list[bytes]:
    """An input is several datagrams, each behind its length; what is left over is the last one."""
    found = []
    while len(data) > 2 and len(found) < 8:
        length = int.from_bytes(data[:2], "big")
        found.append(data[2 : 2 + length])
        data = data[2 + length :]
    return found


def pack_datagrams(*payloads: bytes) -> bytes:
    return b"".join(len(payload).to_bytes(2, "big") + payload for payload in payloads)


def fuzz_tftpd(data: bytes) -> None:
    """The server reads on, answers in TFTP and only what it was asked for, and keeps nothing of a client that left."""
    site = _tftp()
    site.server.counts["failed"] = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.bind(OURS)
        client.setblocking(False)
        peer: tuple[str, int] | None = None
        for payload in datagrams(data):
            first = payload[:2] in (b"\0\1", b"\0\2") or peer is None
            client.sendto(payload, ("127.0.0.1", site.port) if first or peer is None else peer)
            site.turn()
            peer = _hear(client, peer)
        assert site.server.counts["failed"] == 0, "a fault of ours"
        client.sendto(tftp.pack_error(0, "bye"), peer or ("127.0.0.1", site.port))
        site.turn()
    for transfer in list(site.server._transfers.values()):
        transfer.end("stopped", "the next input")
    assert not site.server._per_peer, "sessions of a peer that has none"


def _hear(client: socket.socket, peer: tuple[str, int] | None) -> tuple[str, int] | None:
    """Read every answer; who gives the file."""
    while True:
        try:
            raw, sender = client.recvfrom(65535)
        except OSError:
            return peer
        message = tftp.parse(raw)  # WireError: that was no TFTP
        assert isinstance(message, tftp.Data | tftp.Oack | tftp.Error), "what a server says"
        if isinstance(message, tftp.Data):
            assert message.payload in LOADER, "bytes of the file that was asked for"
        if not isinstance(message, tftp.Error):
            peer = sender


# --- HTTP: any request at all to the boot routes ---


class _Boot:
    """The routes over a site with one machine that has an image."""

    def __init__(self) -> None:
        image = build(folder())
        good = tokens.seal(KEY, tokens.Token("00" * 8, MAC, tokens.image_prefix(image.digest), 1))
        forged = tokens.seal(b"x" * 32, tokens.Token("11" * 8, FORGED))
        kernel = image.kernel.digest.removeprefix("sha256:")
        self.words = {b"TOKEN": good.encode(), b"FORGED": forged.encode(), b"KERNEL": kernel.encode()}
        self.events: list[Event] = []
        config = Config(server=Server(data=str(folder())))
        site = Site(config, load_quirks(), http_port=8080)
        site.see(
            FleetView(
                machines={1: Machine(1, "node", (MAC,))},
                by_mac={MAC: 1},
                assignments={1: Assignment(1, "web", image.digest, 1)},
                images={image.digest: image},
                newest={"web": image.digest},
            )
        )
        self.recorder = Recorder(KEY, config, self.events.append)
        self.routes: Callable[[Request], Any] = BootRoutes(site, self.recorder, dict, lambda: 1000.0)

    def ask(self, request: Request) -> Any:
        """The response, whether the handler waits or not."""
        answer = self.routes(request)
        if inspect.isawaitable(answer):
            try:
                answer.__await__().send(None)
            except StopIteration as done:
                return done.value
            raise AssertionError("a boot route waits")
        return answer


@functools.cache
def _boot() -> _Boot:
    return _Boot()


def fuzz_routes(data: bytes) -> None:
    """A status that a route gives, never 500; nothing of the host but kernel, initrd and loader; events of our machine.

    In the input TOKEN stands for a good token, FORGED for one with another key, and KERNEL for the digest of a kernel.
    """
    site = _boot()
    raw, _, body = data.partition(b"\r\n\r\n")
    for word, meant in site.words.items():
        raw = raw.replace(word, meant)
    try:
        head = httpwire.parse_head(raw + b"\r\n\r\n")
    except httpwire.BadRequest:
        return
    site.events.clear()
    response = site.ask(Request(head, body, "10.77.9.9", "10.77.0.1", 8080))
    assert response.status in _STATUSES, f"status {response.status}"
    if response.file is not None:
        served = Path(f"/proc/self/fd/{response.file.fd}").resolve()
        assert served.is_relative_to(folder() / "loaders") or served.is_relative_to(folder() / "store"), "a file"
        assert b"not to be served" not in os.pread(response.file.fd, 100, 0)
        response.file.close()
    text = response.body
    if response.sent is not None and response.file is None:
        response.sent(Sent(0, len(text), len(text), len(text), 0.0))
    if head.path.startswith("/boot/") and head.path.endswith("script.ipxe") and response.status == 200:
        assert text.startswith(b"#!ipxe\n"), "a script"
        assert all(line.isprintable() for line in text.decode().splitlines()), "a line of iPXE's"
    if head.path.startswith("/boot/" + site.words[b"FORGED"].decode()):
        assert response.status == 404 and not site.events, "a token with another key opens nothing"
    for event in site.events:
        assert event.mac, "whose it is"
        assert len(event.text) <= 64 << 10 and all(isinstance(value, str) for value in event.data.values())


def seeds(target: str) -> list[bytes]:
    if target == "tftpd":
        rrq = tftp.pack_request("snponly.efi", options={"tsize": "0", "blksize": "1468", "windowsize": "4"})
        probe = tftp.pack_error(8, "User aborted")
        plain = tftp.pack_request("\\SUB\\../snponly.efi")
        return [
            pack_datagrams(rrq, probe, rrq, tftp.pack_ack(0), tftp.pack_ack(2)),
            pack_datagrams(tftp.pack_request("snponly.efi"), *(tftp.pack_ack(n) for n in range(1, 7))),
            pack_datagrams(
                tftp.pack_request("snponly.efi", mode="netascii"), plain, tftp.pack_request("x", write=True)
            ),
            pack_datagrams(rrq, tftp.pack_data(1, b"x"), tftp.pack_oack({"blksize": "8"}), rrq + b"x\0"),
            pack_datagrams(tftp.pack_request("x" * 300), tftp.pack_request("sub/" * 200)),
        ]
    lines = (
        "GET /boot/TOKEN/script.ipxe?mac=52:54:00:00:00:01&platform=efi&memsize=1024&serial=a%20b HTTP/1.1",
        "GET /boot/TOKEN/script.ipxe HTTP/1.1",
        "GET /boot/script.ipxe?mac=52:54:00:00:00:02&platform=pcbios HTTP/1.1",
        "GET /b/KERNEL/kernel?boot=TOKEN HTTP/1.1\r\nRange: bytes=0-9",
        "GET /b/KERNEL/script.ipxe?boot=TOKEN HTTP/1.1",  # a blob by whatever name
        f"GET /b/KERNEL/kernel?boot=TOKEN{'&' * 120} HTTP/1.1",
        f"POST /boot/TOKEN/event HTTP/1.1\r\n\r\nstage=up{'&a=b' * 120}",
        "HEAD /boot/TOKEN/loader/sub/../snponly.efi HTTP/1.1",
        f"GET /boot/TOKEN/loader/{'x' * 300} HTTP/1.1",
        "POST /boot/TOKEN/event HTTP/1.1\r\nContent-Length: 20\r\n\r\nstage=up&memory=4096",
        "POST /boot/TOKEN/event HTTP/1.1\r\n\r\ncause=initrd-cut-short&text=%00%ff",
        "POST /boot/TOKEN/log HTTP/1.1\r\n\r\n\xff\x00line",
        "GET /boot/TOKEN/metadata HTTP/1.1",
        "POST /boot/FORGED/up HTTP/1.1",
        "GET /boot/TOKEN/loader/link.efi HTTP/1.1",
        "POST /boot/TOKEN/up HTTP/1.1",
        "GET /boot/TOKEN/loader/autoexec.ipxe?mac=&platform=&uuid=%0a HTTP/1.1",
        "GET /healthz HTTP/1.0",
    )
    return [line.encode("latin-1") for line in lines]
