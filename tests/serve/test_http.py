"""The HTTP front with real clients: files, ranges, keep-alive, peers that misbehave."""

from __future__ import annotations

import hashlib
import os
import resource
import socket
import struct
import threading
import time
from collections.abc import Generator
from pathlib import Path

import httpx
import pytest
from servelab import Loop

from pxeserver.serve import listening
from pxeserver.serve.filepump import TURN_FILES
from pxeserver.serve.http import ACCEPTS, Front, Limits, Request, Response, Sent
from pxeserver.serve.openfiles import OpenFile
from pxeserver.serve.proxies import networks

LIMITS = Limits(connections=40, per_peer=30, first=1.0, idle=1.0, stall=1.0, body=1000)


class Site:
    """A front with one file and a few routes."""

    def __init__(self, loop: Loop, folder: Path, limits: Limits = LIMITS) -> None:
        self.loop = loop
        self.content = hashlib.shake_128(b"file").digest(3_000_000)
        self.file = folder / "file"
        self.file.write_bytes(self.content)
        self.big = folder / "big"
        self.big.touch()
        os.truncate(self.big, 64 << 20)
        self.sent: list[Sent] = []
        self.ended = threading.Event()
        self.front = Front(self.handle, limits)
        sock = listening.tcp("127.0.0.1", 0, "http")
        self.port = sock.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        loop.call(lambda: self.front.start([sock]))

    async def handle(self, request: Request) -> Response:
        if request.path == "/file":
            return Response(file=OpenFile.at(self.file), etag="abc", type="application/x-test", sent=self.note)
        if request.path == "/big":
            return Response(file=OpenFile.at(self.big))
        if request.path == "/echo":
            return Response(
                201, f"{request.method} {request.query} {request.form} {request.peer} {request.own}".encode()
            )
        if request.path == "/long":
            return Response(body=self.content * 3)
        if request.path == "/break":
            raise RuntimeError("a bug")
        return Response(404, b"no such page\n")

    def note(self, sent: Sent) -> None:
        self.sent.append(sent)
        self.ended.set()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)

    def close(self) -> None:
        self.loop.run(self.front.close())


@pytest.fixture
def site(loop: Loop, tmp_path: Path) -> Generator[Site, None, None]:
    running = Site(loop, tmp_path)
    yield running
    running.close()


@pytest.fixture
def patient(loop: Loop, tmp_path: Path) -> Generator[Site, None, None]:
    """Lets nobody go."""
    running = Site(loop, tmp_path, Limits())
    yield running
    running.close()


def read_to_end(sock: socket.socket) -> bytes:
    parts = []
    while part := sock.recv(65536):
        parts.append(part)
    return b"".join(parts)


def test_a_file_arrives_whole_with_length_type_and_etag(site: Site) -> None:
    got = httpx.get(site.url + "/file")
    assert got.content == site.content
    assert got.headers["content-length"] == "3000000"
    assert got.headers["content-type"] == "application/x-test"
    assert got.headers["etag"] == '"abc"'
    assert site.ended.wait(10)
    assert site.sent[0].to_the_end
    assert site.sent[0].sent == 3_000_000


def test_head_has_the_same_headers_and_no_body(site: Site) -> None:
    with httpx.Client() as client:
        got, want = client.head(site.url + "/file"), client.get(site.url + "/file")
        assert client.head(site.url + "/nothing").headers["content-length"] == "13"
    assert got.content == b""
    assert {**got.headers, "date": ""} == {**want.headers, "date": ""}


@pytest.mark.parametrize(
    ("headers", "status", "part", "content_range"),
    [
        ({"Range": "bytes=100-199"}, 206, slice(100, 200), "bytes 100-199/3000000"),
        ({"Range": "bytes=2999990-"}, 206, slice(2999990, None), "bytes 2999990-2999999/3000000"),
        ({"Range": "bytes=-7"}, 206, slice(2999993, None), "bytes 2999993-2999999/3000000"),
        ({"Range": "bytes=0-1,3-4"}, 200, slice(None), None),
        ({"Range": "bytes=0-1", "If-Range": '"abc"'}, 206, slice(0, 2), "bytes 0-1/3000000"),
        ({"Range": "bytes=0-1", "If-Range": '"old"'}, 200, slice(None), None),
    ],
)
def test_ranges(site: Site, headers: dict[str, str], status: int, part: slice, content_range: str | None) -> None:
    got = httpx.get(site.url + "/file", headers=headers)
    assert got.status_code == status
    assert got.content == site.content[part]
    assert got.headers.get("content-range") == content_range
    assert got.headers["content-length"] == str(len(got.content))


def test_a_range_outside_the_file_is_416_with_its_size(site: Site) -> None:
    got = httpx.get(site.url + "/file", headers={"Range": "bytes=3000000-"})
    assert got.status_code == 416
    assert got.headers["content-range"] == "bytes */3000000"


def test_an_etag_that_is_known_sends_nothing(site: Site) -> None:
    got = httpx.get(site.url + "/file", headers={"If-None-Match": '"abc"'})
    assert (got.status_code, got.content, got.headers["etag"]) == (304, b"", '"abc"')
    assert site.ended.wait(10), "whoever counts downloads hears of its end"
    assert (site.sent[0].sent, site.sent[0].to_the_end) == (0, False)


def test_only_a_response_that_reaches_the_last_byte_is_to_the_end(site: Site) -> None:
    httpx.get(site.url + "/file", headers={"Range": "bytes=0-99"})
    assert site.ended.wait(10)
    assert not site.sent[0].to_the_end
    site.ended.clear()
    httpx.get(site.url + "/file", headers={"Range": "bytes=100-"})
    assert site.ended.wait(10)
    assert site.sent[1].to_the_end


def test_requests_share_a_connection_even_pipelined(site: Site) -> None:
    with site.connect() as sock:
        sock.sendall(b"GET /nothing HTTP/1.1\r\n\r\nPOST /echo?a=1 HTTP/1.1\r\nContent-Length: 3\r\n\r\nb=2")
        sock.sendall(b"GET /file HTTP/1.1\r\nConnection: close\r\n\r\n")
        raw = read_to_end(sock)
    assert raw.count(b"HTTP/1.1 ") == 3
    assert b"POST {'a': '1'} {'b': '2'} 127.0.0.1 127.0.0.1" in raw
    assert raw.endswith(site.content)


def test_a_long_body_goes_out_as_the_peer_takes_it_and_the_next_request_follows(patient: Site) -> None:
    with patient.connect() as sock:
        sock.sendall(
            b"GET /long HTTP/1.1\r\n\r\nGET /file HTTP/1.1\r\n\r\nGET /nothing HTTP/1.1\r\nConnection: close\r\n\r\n"
        )
        raw = read_to_end(sock)
    assert raw.count(b"HTTP/1.1 200 OK") == 2
    assert raw.count(patient.content) == 4
    assert raw.endswith(b"no such page\n")


def test_more_downloads_than_have_a_turn_at_once_all_arrive_whole(patient: Site) -> None:
    socks = [patient.connect() for _ in range(3 * TURN_FILES)]
    for sock in socks:
        sock.sendall(b"GET /file HTTP/1.1\r\nConnection: close\r\n\r\n")
    assert httpx.get(patient.url + "/nothing").status_code == 404, "answered between the turns"
    for sock in socks:
        assert read_to_end(sock).endswith(b"\r\n\r\n" + patient.content)
        sock.close()


def test_a_hundred_requests_at_once_on_one_connection(site: Site) -> None:
    with site.connect() as sock:
        sock.sendall(b"GET /nothing HTTP/1.1\r\n\r\n" * 99 + b"GET /nothing HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert read_to_end(sock).count(b"no such page\n") == 100


def test_more_requests_than_are_read_at_once_wait_for_each_other(patient: Site) -> None:
    page, file = b"GET /nothing HTTP/1.1\r\n\r\n", b"GET /file HTTP/1.1\r\n\r\n"
    several = page * 3000 + file + page * 3000 + file
    with patient.connect() as sock:
        sender = threading.Thread(target=sock.sendall, args=(several + b"GET /end HTTP/1.0\r\n\r\n",))
        sender.start()
        raw = read_to_end(sock)
        sender.join()
    assert raw.count(b"no such page\n") == 6001
    assert raw.count(patient.content) == 2


def test_requests_at_once_are_answered_without_a_task_just_as_well(loop: Loop) -> None:
    front, sock = Front(lambda request: Response(body=request.path.encode())), listening.tcp("127.0.0.1", 0, "http")
    loop.call(lambda: front.start([sock]))
    paths = [f"/{number}" for number in range(6000)]
    with socket.create_connection(sock.getsockname(), timeout=10) as client:
        several = "".join(f"GET {path} HTTP/1.1\r\n\r\n" for path in paths) + "GET /end HTTP/1.0\r\n\r\n"
        sender = threading.Thread(target=client.sendall, args=(several.encode(),))
        sender.start()
        raw = read_to_end(client)
        sender.join()
    assert [part.partition(b"HTTP/1.1 ")[0].decode() for part in raw.split(b"\r\n\r\n")[1:]] == [*paths, "/end"]
    loop.run(front.close())


def test_who_has_said_everything_still_gets_it_all(patient: Site) -> None:
    with patient.connect() as sock:
        sock.sendall(b"GET /long HTTP/1.1\r\n\r\nGET /file HTTP/1.1\r\n\r\n")
        sock.shutdown(socket.SHUT_WR)
        time.sleep(0.1)
        assert read_to_end(sock).count(patient.content) == 4
        for _ in range(100):
            if patient.loop.call(lambda: patient.front.connections) == 0:
                return
            time.sleep(0.05)
    pytest.fail("the connection was not closed")


def test_a_fault_in_what_is_told_about_a_delivery_costs_no_connection(
    site: Site, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site, "note", lambda sent: 1 / 0)
    with httpx.Client() as client:
        assert client.get(site.url + "/file").content == site.content
        assert client.get(site.url + "/nothing").status_code == 404
    assert "a delivery was not noted" in caplog.text


def test_a_proxy_may_have_more_connections_than_a_peer(site: Site) -> None:
    site.front.proxies = networks(["127.0.0.0/8"])
    held = [site.connect() for _ in range(LIMITS.per_peer + 2)]
    assert httpx.get(site.url + "/nothing").status_code == 404
    for sock in held:
        sock.close()


def test_double_slashes_are_one_and_nothing_is_ever_redirected(site: Site) -> None:
    assert httpx.get(site.url + "//file").content == site.content
    for path in ("/file/", "/echo/..", "/%2e%2e/etc/passwd", "/"):
        assert httpx.get(site.url + path).status_code in (200, 404)


def test_a_bug_is_500_and_the_connection_goes_on(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    with httpx.Client() as client:
        assert client.get(site.url + "/break").status_code == 500
        assert client.get(site.url + "/nothing").status_code == 404
    assert "a bug" in caplog.text


def test_a_body_that_is_too_large_is_refused_unread(site: Site) -> None:
    assert httpx.post(site.url + "/echo", content=b"x" * 1001).status_code == 413
    assert httpx.post(site.url + "/echo", content=b"x" * 1000).status_code == 201


def test_a_client_that_waits_for_100_gets_it(site: Site) -> None:
    with site.connect() as sock:
        sock.sendall(b"POST /echo HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 1\r\nConnection: close\r\n\r\n")
        assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"x")
        assert read_to_end(sock).startswith(b"HTTP/1.1 201 ")


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nA: " + b"x" * 20000 + b"\r\n\r\n", b"431"),
        (b"x" * 20000, b"431"),
    ],
)
def test_garbage_is_answered_and_closed(site: Site, raw: bytes, status: bytes) -> None:
    with site.connect() as sock:
        sock.sendall(raw)
        assert read_to_end(sock).split(b" ")[1] == status


@pytest.mark.parametrize("raw", [b"", b"GET /file HT", b"POST /echo HTTP/1.1\r\nContent-Length: 5\r\n\r\nab"])
def test_a_peer_that_says_too_little_is_let_go(site: Site, raw: bytes) -> None:
    with site.connect() as sock:
        sock.sendall(raw)
        assert read_to_end(sock) == b""  # after LIMITS.first or .stall


def test_a_peer_that_reads_nothing_is_let_go_and_noted(site: Site) -> None:
    with site.connect() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.sendall(b"GET /file HTTP/1.1\r\n\r\n" * 3)
        assert site.ended.wait(20)
        while site.sent[-1].sent == 3_000_000:  # the buffers of both ends may take the first ones
            site.ended.clear()
            assert site.ended.wait(20)
    assert not site.sent[-1].to_the_end


def test_a_peer_that_resets_costs_nothing(site: Site) -> None:
    for _ in range(20):
        sock = site.connect()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.sendall(b"GET /file HTTP/1.1\r\n\r\n")
        sock.close()
    assert httpx.get(site.url + "/file").content == site.content
    assert site.front.counts["failed"] == 0


def test_one_peer_cannot_take_all_connections(site: Site) -> None:
    held = [site.connect() for _ in range(LIMITS.per_peer)]
    with pytest.raises(httpx.HTTPError):
        httpx.get(site.url + "/file")
    for sock in held:
        sock.close()
    site.loop.call(lambda: None)
    for _ in range(100):
        if not site.loop.call(lambda: site.front.connections):
            break
    assert httpx.get(site.url + "/file").content == site.content


def test_a_file_that_shrinks_ends_the_connection_not_the_server(site: Site) -> None:
    with site.connect() as sock:
        sock.sendall(b"GET /big HTTP/1.1\r\n\r\n")
        sock.recv(1000)
        os.truncate(site.big, 0)
        assert len(read_to_end(sock)) < 64 << 20
    assert httpx.get(site.url + "/nothing").status_code == 404


def test_a_unix_socket_speaks_the_same(loop: Loop, site: Site, tmp_path: Path) -> None:
    path = tmp_path / "run" / "api.sock"
    sock = listening.unix(path)
    loop.call(lambda: site.front.start([sock]))
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as client:
        assert client.get("http://local/file").content == site.content


def waiting(port: int, count: int) -> list[socket.socket]:
    """Connections that have sent their request before anybody accepts."""
    socks = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(count)]
    for sock in socks:
        sock.sendall(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
    return socks


def test_what_is_told_of_a_body_waits_until_everybody_is_answered(loop: Loop) -> None:
    order: list[str] = []

    def told(sent: Sent) -> None:
        order.append(f"told {sent.sent} {sent.to_the_end}")
        raise RuntimeError("a bug")

    def handle(request: Request) -> Response:
        order.append("asked")
        return Response(body=b"text", sent=told)

    front, sock = Front(handle), listening.tcp("127.0.0.1", 0, "http")
    clients = waiting(sock.getsockname()[1], 3)
    loop.call(lambda: front.start([sock]))
    for client in clients:
        with client:
            assert read_to_end(client).endswith(b"\r\n\r\ntext")
    assert (order, front.counts["failed"]) == (["asked"] * 3 + ["told 4 True"] * 3, 3)
    loop.run(front.close())


def test_more_than_one_turn_accepts_are_all_answered(loop: Loop) -> None:
    front, sock = Front(lambda request: Response(body=b"text")), listening.tcp("127.0.0.1", 0, "http")
    clients = waiting(sock.getsockname()[1], ACCEPTS + 10)
    loop.call(lambda: front.start([sock]))
    for client in clients:
        with client:
            assert read_to_end(client).endswith(b"text")
    loop.run(front.close())


def test_out_of_descriptors_new_machines_wait_until_there_are_some(site: Site) -> None:
    with socket.socket() as sock:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        try:
            sock.connect(("127.0.0.1", site.port))  # without a time limit: poll() would count descriptors
            while not site.front.counts["accept-failed"]:
                time.sleep(0.001)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        sock.settimeout(10)
        sock.sendall(b"GET /nothing HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert read_to_end(sock).endswith(b"no such page\n")
