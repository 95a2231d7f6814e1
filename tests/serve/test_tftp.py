"""The TFTP server against real clients: tftpy's, and a raw one that loses, repeats and asks for windows."""

from __future__ import annotations

import hashlib
import os
import random
import socket
import threading
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
import tftpy
from servelab import Loop

from pxeserver.config import Tftp
from pxeserver.serve import transfer, udp
from pxeserver.serve.tftp import TftpServer
from pxeserver.serve.transfer import Outcome
from pxeserver.wire import tftp

LIMITS = Tftp(sessions_max=20, sessions_per_peer=10)


class Site:
    """A server over a folder, on loopback."""

    def __init__(self, loop: Loop, folder: Path) -> None:
        self.loop = loop
        self.folder = folder
        self.outcomes: list[Outcome] = []
        self.clients: list[Client] = []
        self._ended = threading.Condition()
        self.server = TftpServer(LIMITS, self.resolve, self.note)
        sock = udp.listen(0, what="tftp")
        self.port = sock.getsockname()[1]
        loop.call(lambda: self.server.start(sock))

    def resolve(self, path: str, arrived: udp.Datagram) -> bytes | Path | None:
        return f"made for {arrived.peer[0]}".encode() if path == "made" else self.folder / path

    def note(self, outcome: Outcome) -> None:
        with self._ended:
            self.outcomes.append(outcome)
            self._ended.notify_all()

    def outcome(self, number: int = 0) -> Outcome:
        with self._ended:
            assert self._ended.wait_for(lambda: len(self.outcomes) > number, 20)
        return self.outcomes[number]

    def file(self, name: str, size: int) -> bytes:
        content = hashlib.shake_128(name.encode()).digest(size)
        (self.folder / name).write_bytes(content)
        return content

    def client(self, address: str = "127.0.0.1") -> Client:
        self.clients.append(Client(address, self.port))
        return self.clients[-1]

    def ask(self, name: str, address: str = "127.0.0.1", mode: str = "octet", **options: int) -> Client:
        client = self.client(address)
        texts = {key: str(value) for key, value in options.items()}
        client.send(tftp.pack_request(name, mode=mode, options=texts))
        return client


class Client:
    """A raw TFTP client; `lossy` decides for each packet in either direction whether it is lost."""

    def __init__(self, address: str, port: int) -> None:
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.settimeout(10)
        self.server = (address, port)

    def send(self, raw: bytes) -> None:
        self.sock.sendto(raw, self.server)

    def receive(self) -> tftp.Message:
        raw, self.server = self.sock.recvfrom(70000)
        return tftp.parse(raw)

    def quiet(self, seconds: float) -> bool:
        self.sock.settimeout(seconds)
        try:
            self.sock.recv(70000)
        except TimeoutError:
            return True
        finally:
            self.sock.settimeout(10)
        return False

    def fetch(self, blksize: int = 512, window: int = 1, lossy: Callable[[], bool] = lambda: False) -> bytes:
        """The rest of a transfer, as RFC 7440 has it: ACK each window, and the last good block at a gap."""
        content, last, since = bytearray(), 0, 0
        self.sock.settimeout(0.3)
        while True:
            try:
                message = self.receive()
            except TimeoutError:
                self.send(tftp.pack_ack(last))
                continue
            if isinstance(message, tftp.Oack):
                self.send(tftp.pack_ack(0))
                continue
            assert isinstance(message, tftp.Data), message
            if lossy():
                continue
            if message.block == (last + 1) & 0xFFFF:
                content += message.payload
                last, since = message.block, since + 1
                final = len(message.payload) < blksize
                if final or since >= window:
                    since = 0
                    if final or not lossy():
                        self.send(tftp.pack_ack(last))
                if final:
                    return bytes(content)
            elif since:
                since = 0
                self.send(tftp.pack_ack(last))


@pytest.fixture
def site(loop: Loop, tmp_path: Path) -> Generator[Site, None, None]:
    running = Site(loop, tmp_path)
    yield running
    loop.call(running.server.close)
    for client in running.clients:
        client.sock.close()


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 1468 * 3, 100_000])
@pytest.mark.parametrize("options", [{}, {"blksize": 1468}, {"blksize": 1468, "tsize": 0}])
def test_tftpys_client_gets_the_file(site: Site, tmp_path: Path, size: int, options: dict[str, int]) -> None:
    content = site.file("loader", size)
    tftpy.TftpClient("127.0.0.1", site.port, dict(options)).download("loader", str(tmp_path / "got"), timeout=5)
    assert (tmp_path / "got").read_bytes() == content
    outcome = site.outcome()
    assert (outcome.name, outcome.result, outcome.bytes, outcome.peer[0]) == ("loader", "done", size, "127.0.0.1")


@pytest.mark.parametrize("window", [2, 4, 16, 64])
def test_windows(site: Site, window: int) -> None:
    content = site.file("loader", 500_000)
    client = site.ask("loader", blksize=1400, windowsize=window)
    assert client.receive() == tftp.Oack((("blksize", "1400"), ("windowsize", str(window))))
    client.send(tftp.pack_ack(0))
    assert client.fetch(1400, window) == content


@pytest.mark.parametrize("window", [4, 64])
def test_a_kernel_that_cuts_nothing_up_gets_block_by_block(
    site: Site, monkeypatch: pytest.MonkeyPatch, window: int
) -> None:
    monkeypatch.setattr(transfer.Transfer, "_segment", lambda self, size: False)
    content = site.file("loader", 300_000)
    client = site.ask("loader", blksize=1400, windowsize=window)
    client.receive()
    client.send(tftp.pack_ack(0))
    assert client.fetch(1400, window) == content


def test_options_are_clamped_and_only_those_known_are_answered(site: Site) -> None:
    site.file("loader", 700)
    client = site.ask("loader", blksize=65464, windowsize=65535, tsize=0, timeout=3, multicast=1)
    want = (("blksize", "1468"), ("windowsize", "64"), ("tsize", "700"), ("timeout", "3"))
    assert client.receive() == tftp.Oack(want)


def test_a_window_stays_below_what_a_client_can_buffer(site: Site, loop: Loop) -> None:
    site.file("loader", 100)
    site.server.limits = Tftp(blksize_max=8192)
    client = site.ask("loader", blksize=8192, windowsize=64)
    assert client.receive() == tftp.Oack((("blksize", "8192"), ("windowsize", "16")))


def test_a_size_probe_is_no_failure(site: Site) -> None:
    site.file("loader", 100)
    client = site.ask("loader", tsize=0)
    assert client.receive() == tftp.Oack((("tsize", "100"),))
    client.send(tftp.pack_error(8, "User aborted transfer"))
    assert site.outcome().result == "probe"


def test_block_numbers_roll_over(site: Site) -> None:
    content = site.file("big", 8 * 70_000 + 3)
    client = site.ask("big", blksize=8, windowsize=64)
    assert isinstance(client.receive(), tftp.Oack)
    client.send(tftp.pack_ack(0))
    assert client.fetch(8, 64) == content


@pytest.mark.parametrize("size", [9 << 20, (9 << 20) // 1468 * 1468])
def test_a_file_too_large_to_keep_is_read_as_it_goes(site: Site, size: int) -> None:
    content = site.file("big", size)
    client = site.ask("big", blksize=1468, windowsize=32)
    client.receive()
    client.send(tftp.pack_ack(0))
    assert client.fetch(1468, 32) == content
    assert site.server._cache.weight == 0


def test_a_file_that_shrinks_ends_its_transfer_alone(site: Site) -> None:
    site.file("big", 9 << 20)
    client = site.ask("big", blksize=1468)
    client.receive()
    os.truncate(site.folder / "big", 0)
    client.send(tftp.pack_ack(0))
    assert isinstance(client.receive(), tftp.Error)
    assert site.outcome().result == "unreadable"


@pytest.mark.parametrize("window", [1, 8])
def test_loss_in_both_directions(site: Site, window: int) -> None:
    content = site.file("loader", 60_000)
    rng = random.Random(7)
    client = site.ask("loader", blksize=1024, windowsize=window)
    client.receive()
    client.send(tftp.pack_ack(0))
    assert client.fetch(1024, window, lambda: rng.random() < 0.05) == content
    assert site.outcome().result == "done"


def test_a_duplicate_ack_at_window_1_causes_no_resend(site: Site) -> None:
    site.file("loader", 2000)
    client = site.ask("loader", timeout=60)
    assert isinstance(client.receive(), tftp.Oack)
    client.send(tftp.pack_ack(0))
    assert client.receive().block == 1
    client.send(tftp.pack_ack(1))
    client.send(tftp.pack_ack(1))
    client.send(tftp.pack_ack(0))
    assert client.receive().block == 2
    assert client.quiet(0.03)  # less than the smallest retransmission timeout


def test_a_lost_first_block_of_a_window_is_resent_at_once_but_only_once(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer.Transfer, "_measure", lambda self, now: None)  # as on a path without delay
    monkeypatch.setattr(transfer, "RTO_MAX", 60.0)
    site.file("loader", 512 * 8)
    client = site.ask("loader", windowsize=4, timeout=60)
    client.receive()
    client.send(tftp.pack_ack(0))
    assert [client.receive().block for _ in range(4)] == [1, 2, 3, 4]
    client.send(tftp.pack_ack(0))
    assert [client.receive().block for _ in range(4)] == [1, 2, 3, 4]
    client.send(tftp.pack_ack(0))
    assert client.quiet(0.1)
    client.send(tftp.pack_ack(2))
    assert [client.receive().block for _ in range(4)] == [3, 4, 5, 6]


@pytest.mark.parametrize("window", [1, 4])
def test_what_comes_in_a_heap_is_all_heard(site: Site, monkeypatch: pytest.MonkeyPatch, window: int) -> None:
    monkeypatch.setattr(transfer.Transfer, "_measure", lambda self, now: None)
    monkeypatch.setattr(transfer, "RTO_MAX", 60.0)
    content = site.file("loader", 512 * 40)
    client = site.ask("loader", timeout=60, **({"windowsize": window} if window > 1 else {}))
    assert isinstance(client.receive(), tftp.Oack)
    client.send(tftp.pack_ack(0))
    got = b""
    for last in range(window, 41, window):
        got += b"".join(client.receive().payload for _ in range(window))
        for old in (last - window + 60_000, last - window + 60_001):
            client.send(tftp.pack_ack(old))
        client.send(b"junk")
        client.send(tftp.pack_ack(last))
        client.send(tftp.pack_ack(last - window + 60_002))
    client.receive()
    client.send(tftp.pack_ack(41))
    assert got == content
    assert site.outcome().result == "done"


def test_an_error_behind_an_ack_is_heard_at_the_latest_before_a_resend(
    site: Site, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.file("loader", 2000)
    client = site.ask("loader", timeout=60)
    assert isinstance(client.receive(), tftp.Oack)

    def both_while_the_server_does_something_else() -> None:
        client.send(tftp.pack_ack(0))
        client.send(tftp.pack_error(0, "enough"))

    loop.call(both_while_the_server_does_something_else)
    assert site.outcome().result == "aborted"
    assert site.outcome().text == "error 0 enough"


def test_silence_is_answered_by_resends_with_growing_pauses_then_given_up(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "RTO_FIRST", 0.02)
    monkeypatch.setattr(transfer, "GIVE_UP", 0.3)
    site.file("loader", 2000)
    client = site.ask("loader")
    assert site.outcome().result == "lost"
    blocks = [client.receive().block]
    while not client.quiet(0.01):
        blocks.append(1)
    assert 3 <= len(blocks) <= 6


def test_a_client_that_leaves_without_the_last_ack_is_done(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "RTO_FIRST", 0.01)
    site.file("loader", 100)
    client = site.ask("loader")
    assert len(client.receive().payload) == 100
    client.sock.close()
    assert site.outcome().result == "done"


def test_a_repeated_request_is_one_transfer_and_a_new_one_replaces_it(site: Site) -> None:
    content = site.file("loader", 1000)
    listener = ("127.0.0.1", site.port)
    client = site.ask("loader", timeout=60)
    client.sock.sendto(tftp.pack_request("loader", options={"timeout": "60"}), listener)
    assert isinstance(client.receive(), tftp.Oack)
    assert client.quiet(0.05)
    client.sock.sendto(tftp.pack_request("loader"), listener)
    assert site.outcome().result == "replaced"
    assert client.fetch() == content


def test_the_answer_comes_from_the_address_that_was_asked(site: Site) -> None:
    site.file("loader", 10)
    for address in ("127.0.0.1", "127.9.8.7"):
        client = site.ask("loader", address)
        client.receive()
        assert client.server[0] == address
        client.send(tftp.pack_ack(1))
        missing = site.ask("nothing", address)
        missing.receive()
        assert missing.server == (address, site.port)


def test_generated_content(site: Site) -> None:
    client = site.ask("made")
    assert client.fetch() == b"made for 127.0.0.1"


@pytest.mark.parametrize(
    "name", ["nothing", ".", "../etc/passwd", "/..\\..\\etc/passwd", "a\x01b", "folder", "folder/"]
)
def test_names_that_lead_nowhere(site: Site, name: str) -> None:
    (site.folder / "folder").mkdir()
    message = site.ask(name).receive()
    assert message == tftp.Error(tftp.NOT_FOUND, "no such file")


@pytest.mark.parametrize("name", ["/sub/loader", "\\sub\\loader", "//sub/./loader", "sub/loader\xff"])
def test_odd_spellings_of_a_name(site: Site, name: str) -> None:
    (site.folder / "sub").mkdir()
    content = site.file("sub/loader", 30)
    client = site.client()
    client.send(b"\0\1" + name.encode("latin-1") + b"\0octet\0")
    assert client.fetch() == content


def test_writing_and_other_modes_are_refused(site: Site) -> None:
    site.file("loader", 30)
    client = site.client()
    client.send(tftp.pack_request("loader", write=True))
    assert client.receive().code == tftp.ACCESS_VIOLATION
    assert site.ask("loader", mode="netascii").receive().code == tftp.ILLEGAL
    assert site.ask("loader", mode="OCTET").fetch() == (site.folder / "loader").read_bytes()


def test_malformed_datagrams_cost_only_themselves(site: Site) -> None:
    content = site.file("loader", 3000)
    rng = random.Random(1)
    client = site.client()
    for raw in [b"", b"\0", b"\0\1", b"\0\1\0\0", b"\0\1loader", b"\0\7", b"\xff" * 600, b"\0\4\0\1", b"\0\5"]:
        client.send(raw)
    for _ in range(300):
        client.send(b"\0\1" + rng.randbytes(rng.randrange(60)))
    client.send(b"\0\1loader\0octet\0blksize\0abc\0tsize\0-1\0windowsize\0")
    assert site.ask("loader").fetch() == content
    assert site.server.counts["malformed"] >= 5


def test_one_peer_cannot_take_every_transfer(site: Site) -> None:
    site.file("loader", 3000)
    held = [site.ask("loader", timeout=60) for _ in range(LIMITS.sessions_per_peer)]
    for client in held:
        client.receive()
    late = site.ask("loader")
    assert late.quiet(0.2)
    for client in held:
        client.send(tftp.pack_error(0, "enough"))
    site.outcome(LIMITS.sessions_per_peer - 1)
    late.send(tftp.pack_request("loader"))
    assert len(late.fetch()) == 3000
    assert {outcome.result for outcome in site.outcomes[: len(held)]} <= {"aborted", "probe"}


def test_a_replaced_file_is_served_anew(site: Site) -> None:
    site.file("loader", 3000)
    site.ask("loader").fetch()
    (site.folder / "new").write_bytes(b"n" * 3000)
    (site.folder / "new").rename(site.folder / "loader")
    assert site.ask("loader").fetch() == b"n" * 3000
