"""A WSGI application behind the front: what it is told of a request, what becomes of its answers."""

from __future__ import annotations

import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any

import flask
import httpx
import pytest
from servelab import Loop

from pxeserver.serve import listening
from pxeserver.serve import wsgi as module
from pxeserver.serve.http import Front
from pxeserver.serve.wsgi import UNIX_PEER, WsgiHandler
from pxeserver.web.access import UNIX_PEER as APPLICATION_UNIX_PEER


def make_app(file: Path, gate: threading.Event) -> flask.Flask:
    app = flask.Flask("test")

    @app.route("/env", methods=["GET", "POST"])
    def env() -> dict[str, Any]:
        names = ("REQUEST_METHOD", "REMOTE_ADDR", "CONTENT_LENGTH", "SERVER_PORT", "HTTP_X_TEST", "QUERY_STRING")
        return {name: flask.request.environ.get(name) for name in names} | {
            "body": flask.request.get_data(as_text=True)
        }

    @app.get("/path/<path:rest>")
    def path(rest: str) -> dict[str, str]:
        return {"rest": rest}

    @app.get("/file")
    def send() -> flask.Response:
        return flask.send_file(file, etag=True, max_age=60)

    @app.get("/slow")
    def slow() -> str:
        assert gate.wait(20)
        return "done"

    @app.get("/nothing")
    def nothing() -> tuple[str, int]:
        return "", 204

    @app.get("/cookies")
    def cookies() -> flask.Response:
        response = flask.Response("x", headers={"Server": "other", "Connection": "close"})
        response.set_cookie("a", "1")
        response.set_cookie("b", "2")
        return response

    return app


class Site:
    def __init__(self, loop: Loop, folder: Path) -> None:
        self.loop = loop
        self.file = folder / "page.css"
        self.file.write_text("x" * 100_000)
        self.gate = threading.Event()
        self.handler = WsgiHandler(make_app(self.file, self.gate), threads=2)
        self.front = Front(self.handler)
        tcp, unix = listening.tcp("127.0.0.1", 0, "admin"), listening.unix(folder / "api.sock")
        self.url = f"http://127.0.0.1:{tcp.getsockname()[1]}"
        self.port = tcp.getsockname()[1]
        self.socket = folder / "api.sock"
        loop.call(lambda: self.front.start([tcp, unix]))

    def close(self) -> None:
        self.gate.set()
        self.loop.run(self.front.close())
        self.handler.close()


@pytest.fixture
def site(loop: Loop, tmp_path: Path) -> Generator[Site, None, None]:
    running = Site(loop, tmp_path)
    yield running
    running.close()


def test_the_application_sees_the_request(site: Site) -> None:
    got = httpx.post(site.url + "/env?a=1&b=%20", content=b"body", headers={"X-Test": "yes", "X_Test": "no"}).json()
    assert got == {
        "REQUEST_METHOD": "POST",
        "REMOTE_ADDR": "127.0.0.1",
        "CONTENT_LENGTH": "4",
        "SERVER_PORT": str(site.port),
        "HTTP_X_TEST": "yes",
        "QUERY_STRING": "a=1&b=%20",
        "body": "body",
    }


def test_who_comes_by_the_unix_socket_has_the_name_that_the_application_knows(site: Site) -> None:
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(site.socket))) as client:
        assert client.get("http://local/env").json()["REMOTE_ADDR"] == UNIX_PEER == APPLICATION_UNIX_PEER


def test_paths_are_decoded_once_and_unicode_survives(site: Site) -> None:
    assert httpx.get(site.url + "/path/a%2520b/%C3%BC").json() == {"rest": "a%20b/ü"}


def test_a_file_goes_out_whole_with_the_applications_headers(site: Site) -> None:
    got = httpx.get(site.url + "/file")
    assert got.text == "x" * 100_000
    assert got.headers["content-length"] == "100000"
    assert got.headers["content-type"].startswith("text/css")
    assert got.headers["cache-control"] == "no-cache, max-age=60" or "max-age=60" in got.headers["cache-control"]
    assert site.front.counts["file-bytes"] == 100_000
    again = httpx.get(site.url + "/file", headers={"If-None-Match": got.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    part = httpx.get(site.url + "/file", headers={"Range": "bytes=0-9"})
    assert (part.status_code, part.text) == (206, "x" * 10)


def test_head_gives_the_length_without_the_body(site: Site) -> None:
    got = httpx.head(site.url + "/file")
    assert (got.headers["content-length"], got.content) == ("100000", b"")
    assert httpx.head(site.url + "/env").headers["content-length"] != "0"


def test_repeated_headers_stay_and_those_of_the_connection_go(site: Site) -> None:
    with httpx.Client() as client:
        got = client.get(site.url + "/cookies")
        assert got.headers.get_list("set-cookie") == ["a=1; Path=/", "b=2; Path=/"]
        assert got.headers.get_list("server") == ["pxeserver"]
        assert "connection" not in got.headers
        assert client.get(site.url + "/nothing").status_code == 204


def test_too_many_at_once_are_told_to_come_back(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITING_MAX", 3)
    answers: list[int] = []
    threads = [
        threading.Thread(target=lambda: answers.append(httpx.get(site.url + "/slow", timeout=20).status_code))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    while site.loop.call(lambda: site.handler._running) < 3:
        pass
    late = httpx.get(site.url + "/env")
    assert (late.status_code, late.headers["retry-after"]) == (503, "1")
    site.gate.set()
    for thread in threads:
        thread.join(20)
    assert answers == [200, 200, 200]
