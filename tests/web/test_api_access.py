"""Who may speak to the admin side: the host, or who has the token; never a page from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from fleetlab import MAC, make_fleet

from pxeserver.fleet.values import MachineEdit
from pxeserver.web.access import UNIX_PEER
from pxeserver.web.app import create_app

TOKEN = "a-secret-token"
STATUS = "/api/v1/status"
MACHINE = "/api/v1/machines/web-1"


def client(path: Path, token: str) -> Iterator[FlaskClient]:
    fleet = make_fleet(path, token=token)
    fleet.add_machine(MachineEdit("web-1", (MAC,)))
    yield create_app(fleet, fleet.config).test_client()
    fleet.close()


@pytest.fixture
def api(tmp_path: Path) -> Iterator[FlaskClient]:
    yield from client(tmp_path, TOKEN)


@pytest.fixture
def without_token(tmp_path: Path) -> Iterator[FlaskClient]:
    yield from client(tmp_path, "")


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", UNIX_PEER])
def test_this_host_needs_no_token(api: FlaskClient, peer: str) -> None:
    answer = api.patch(MACHINE, json={"labels": {"a": "b"}}, environ_base={"REMOTE_ADDR": peer})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("peer", ["10.0.0.9", "192.0.2.1", "fe80::1%eth0", "::ffff:10.0.0.1", "", "localhost", "unix2"])
@pytest.mark.parametrize("path", [STATUS, MACHINE, "/"])
def test_other_hosts_need_it_even_to_read(api: FlaskClient, peer: str, path: str) -> None:
    answer = api.get(path, environ_base={"REMOTE_ADDR": peer})
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Basic ")


@pytest.mark.parametrize(
    ("how", "status"),
    [
        ({"headers": {"Authorization": f"Bearer {TOKEN}"}}, 200),
        ({"auth": ("anybody", TOKEN)}, 200),
        ({"headers": {"Authorization": "Bearer wrong"}}, 401),
        ({"headers": {"Authorization": f"Bearer {TOKEN}x"}}, 401),
        ({"auth": (TOKEN, "")}, 401),
        ({"headers": {"Authorization": "Bearer \xff"}}, 401),
        ({"query_string": {"token": TOKEN}}, 401),
    ],
)
def test_the_token(api: FlaskClient, how: dict[str, object], status: int) -> None:
    answer = api.get(STATUS, environ_base={"REMOTE_ADDR": "10.0.0.9"}, **how)  # type: ignore[arg-type]
    assert answer.status_code == status


@pytest.mark.parametrize("given", ["", "Bearer ", "Bearer x"])
def test_without_a_token_set_nobody_else_comes_in(without_token: FlaskClient, given: str) -> None:
    headers = {"Authorization": given} if given else {}
    answer = without_token.get(STATUS, environ_base={"REMOTE_ADDR": "10.0.0.9"}, headers=headers)
    assert answer.status_code == 401


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8081", 200),
        ("localhost:8081", 200),
        ("LOCALHOST", 200),
        ("[::1]:8081", 200),
        ("pxe.localhost:8081", 200),
        ("10.0.0.1:8081", 200),
        ("evil.example:8081", 403),
        ("127.0.0.1.evil.example", 403),
        ("localhost.evil.example:8081", 403),
    ],
)
@pytest.mark.parametrize("path", [STATUS, "/"])
def test_a_foreign_name_that_points_here_gets_nothing(api: FlaskClient, host: str, status: int, path: str) -> None:
    """DNS rebinding: the browser thinks that this is the evil page's own server."""
    assert api.get(path, headers={"Host": host}).status_code == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "http://127.0.0.1:8081"}, 200),
        ({"Origin": "http://127.0.0.1:8081", "Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:9999"}, 403),
        ({"Origin": "http://127.0.0.1"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
    ],
)
def test_a_page_from_elsewhere_cannot_write(api: FlaskClient, headers: dict[str, str], status: int) -> None:
    host = {"Host": "127.0.0.1:8081"}
    assert api.patch(MACHINE, json={"labels": {}}, headers={**host, **headers}).status_code == status
    assert api.get(MACHINE, headers={**host, **headers}).status_code == 200


def test_a_page_from_elsewhere_cannot_write_with_the_browsers_token_either(api: FlaskClient) -> None:
    answer = api.delete(
        MACHINE, environ_base={"REMOTE_ADDR": "10.0.0.9"}, auth=("x", TOKEN), headers={"Origin": "http://evil.example"}
    )
    assert answer.status_code == 403
