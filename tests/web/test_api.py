"""REST API over a real fleet: values as JSON, problems as RFC 9457, strict bodies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from fleetlab import BOOT, MAC, MAC2, MAC3, build, make_fleet, stage
from werkzeug.test import TestResponse

from pxeserver import __version__
from pxeserver.errors import from_problem
from pxeserver.fleet.fleet import Fleet
from pxeserver.fleet.values import (
    AssignOrder,
    BootDetail,
    BootRecord,
    Change,
    Explanation,
    MachineDetail,
    MachineEdit,
    MachineRow,
    Rendering,
    SpecInfo,
    Status,
)
from pxeserver.model import Image, Stage
from pxeserver.serial import from_json
from pxeserver.web.app import BODY_MAX, create_app


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    made = make_fleet(tmp_path)
    made.add_machine(MachineEdit("web-1", (MAC,), {"rack": "r1"}, {"k": "v"}, ("quiet",)))
    build(tmp_path, tags=("v1",))
    yield made
    made.close()


@pytest.fixture
def api(fleet: Fleet) -> FlaskClient:
    return create_app(fleet, fleet.config).test_client()


def problem(answer: TestResponse, status: int, slug: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.mimetype == "application/problem+json"
    body: dict[str, Any] = answer.get_json()
    assert (body["type"], body["status"]) == (slug, status)
    assert from_problem(body).slug == slug
    return body


def test_status(api: FlaskClient, fleet: Fleet) -> None:
    answer = api.get("/api/v1/status")
    assert (answer.status_code, answer.mimetype) == (200, "application/json")
    assert from_json(Status, answer.get_json()) == Status(__version__, str(fleet.config.data), fleet.generation(), 1, 1)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("machines", tuple[MachineRow, ...]),
        ("machines?known=true", tuple[MachineRow, ...]),
        ("unknown", tuple[MachineRow, ...]),
        ("machines/web-1", MachineDetail),
        ("machines/5254.0000.0001", MachineDetail),
        ("machines/1", MachineDetail),
        ("machines/web-1/explain", Explanation),
        ("machines/web-1/explain?arch=0x07&firmware=ipxe", Explanation),
        (f"machines/{MAC3}/explain?arch=16&vendor_class=HTTPClient", Explanation),
        ("machines/web-1/render", Rendering),
        ("machines/web-1/render?what=cmdline", Rendering),
        ("machines/web-1/boots", tuple[BootRecord, ...]),
        ("boots?limit=1", tuple[BootRecord, ...]),
        (f"boots/{BOOT}", BootDetail),
        ("images", tuple[Image, ...]),
        ("images/web:v1", Image),
        ("specs", tuple[SpecInfo, ...]),
    ],
)
def test_everything_that_can_be_read_is_a_value(api: FlaskClient, fleet: Fleet, path: str, kind: Any) -> None:
    fleet.record([stage(Stage.OFFER), stage(Stage.OFFER, 1, MAC2, "aa" * 8)])
    answer = api.get(f"/api/v1/{path}")
    assert answer.status_code == 200, answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    assert from_json(kind, answer.get_json())


def test_what_the_api_says_is_what_the_fleet_says(api: FlaskClient, fleet: Fleet) -> None:
    fleet.record([stage(s, n) for n, s in enumerate(Stage)])
    fleet.assign([MAC], AssignOrder("web"))
    assert from_json(MachineDetail, api.get("/api/v1/machines/web-1").get_json()) == fleet.show("web-1")
    assert from_json(BootDetail, api.get(f"/api/v1/boots/{BOOT}").get_json()) == fleet.boot(BOOT)


def test_macs_and_times_have_one_form(api: FlaskClient) -> None:
    answer = api.post("/api/v1/machines", json={"name": "m2", "macs": ["AABB.CCDD.EE00"]})
    assert answer.status_code == 201 and answer.headers["Location"] == "/api/v1/machines/aa:bb:cc:dd:ee:00"
    (row,) = [m for m in api.get("/api/v1/machines").get_json() if m["name"] == "m2"]
    assert (row["mac"], row["seen"], row["boot"]) == ("aa:bb:cc:dd:ee:00", None, None)
    assert api.get("/api/v1/images").get_json()[0]["created"].endswith("Z")


def test_events_page_by_number(api: FlaskClient, fleet: Fleet) -> None:
    fleet.record([stage(s, n) for n, s in enumerate(Stage)])
    first = api.get("/api/v1/events?limit=3").get_json()
    assert [e["kind"] for e in first] == ["network", "containerd", "up"]
    after = api.get(f"/api/v1/events?after={first[0]['id']}&machine=web-1&boot={BOOT}").get_json()
    assert [e["kind"] for e in after] == ["containerd", "up"]


def test_a_machine_that_is_too_small_is_refused_an_image_unless_forced(api: FlaskClient, fleet: Fleet) -> None:
    build(fleet.config.data, "db", raw_size=1 << 30)
    fleet.record([stage(Stage.OFFER, data={"memory": "512"})])
    url = "/api/v1/machines/web-1/assignment"
    assert "512 MiB" in problem(api.put(url, json={"what": "db"}), 409, "memory-too-small")["title"]
    body = {"what": "db", "targets": ["web-1"]}
    problem(api.post("/api/v1/assignments", json=body), 409, "memory-too-small")
    (change,) = api.post("/api/v1/assignments", json={**body, "force": True}).get_json()
    assert "512 MiB" in change["warnings"][0]


def test_a_machine_from_beginning_to_end(api: FlaskClient, fleet: Fleet) -> None:
    url = "/api/v1/machines/web-1"
    change = api.patch(url, json={"labels": {"rack": None, "row": "2"}, "cmdline": []}).get_json()
    assert from_json(Change, change).undo == "pxeserver machines set web-1 --label rack=r1 --label -row --cmdline quiet"
    whole = {"name": "web-1", "macs": [MAC, MAC2], "vars": {"x": "y"}}
    assert api.put(url, json=whole).status_code == 200
    machine = fleet.find("web-1")
    assert (machine.macs, machine.labels, machine.vars) == ((MAC, MAC2), {}, {"x": "y"})
    assert api.put(f"{url}/pin", json={"style": "binl"}).get_json()["changes"][0]["after"] == "style=binl"
    assert api.delete(f"{url}/pin").get_json()["changes"][0]["after"] == ""
    given = api.put(f"{url}/assignment", json={"what": "web", "args": ["a=b"], "reason": "r"}).get_json()
    assert given["image"].startswith("web@") and given["cmdline"].endswith("a=b")
    history = api.get(url).get_json()["history"]
    assert (history[0]["by"], history[0]["reason"]) == ("api", "r")
    assert problem(api.delete(url), 409, "machine-assigned")["exit_code"] == 4
    assert api.delete(f"{url}/assignment").status_code == 200
    assert api.delete(url).status_code == 200
    assert problem(api.get(url), 404, "machine-not-found")["exit_code"] == 3


def test_put_makes_a_machine_of_its_mac(api: FlaskClient, fleet: Fleet) -> None:
    assert api.put(f"/api/v1/machines/{MAC2}", json={"macs": [MAC2], "name": "m2"}).status_code == 201
    assert api.put(f"/api/v1/machines/{MAC2}", json={"macs": [MAC2], "name": "m3"}).status_code == 200
    assert fleet.find(MAC2).name == "m3"
    problem(api.put(f"/api/v1/machines/{MAC3}", json={"macs": [MAC2]}), 400, "mac-missing")
    problem(api.put("/api/v1/machines/nobody", json={"macs": [MAC3]}), 404, "machine-not-found")
    problem(api.put("/api/v1/machines/web-1", json={"name": "web-1"}), 400, "mac-missing")


def test_several_machines_at_once_or_none(api: FlaskClient, fleet: Fleet) -> None:
    body = {"targets": ["web-1", MAC2], "what": "web", "by": "eva"}
    assert [c["mac"] for c in api.post("/api/v1/assignments", json=body).get_json()] == [MAC, MAC2]
    problem(api.post("/api/v1/assignments", json={**body, "targets": ["web-1", "w2"]}), 404, "machine-not-found")
    answer = api.delete(f"/api/v1/assignments?target=web-1&target={MAC2}")
    assert [c["changes"][0]["after"] for c in answer.get_json()] == ["", ""]
    problem(api.delete("/api/v1/assignments"), 400, "target-missing")


@pytest.mark.parametrize(
    ("body", "slug", "says"),
    [
        (b'{"nmae": "x"}', "body-unknown-key", 'unknown key "nmae" - did you mean "name"?'),
        (b'{"name": 7}', "body-type", '"name" must be text'),
        (b'{"macs": "x"}', "body-type", '"macs" must be a list'),
        (b'{"labels": {"a": 1}}', "body-type", '"a" must be text'),
        (b'{"name": "x", "name": "y"}', "body-duplicate-key", '"name" is given twice'),
        (b'{"name": NaN}', "body-not-json", "NaN"),
        (b"[]", "body-type", "must be a map"),
        (b"{", "body-not-json", "the body is not JSON"),
        (b"[" * 100_000, "body-not-json", "the body is not JSON"),
        (b'{"name": "\xff"}', "body-not-json", "the body is not JSON"),
        (b'{"name": "a b"}', "machine-name", '"a b" cannot be a name'),
    ],
)
def test_bodies_are_strict(api: FlaskClient, body: bytes, slug: str, says: str) -> None:
    answer = api.patch("/api/v1/machines/web-1", data=body, content_type="application/json")
    assert says in problem(answer, 400, slug)["title"]


def test_a_body_of_another_type_is_refused(api: FlaskClient) -> None:
    """A form can be sent by any page without asking; JSON cannot."""
    answer = api.patch("/api/v1/machines/web-1", data="name=x", content_type="application/x-www-form-urlencoded")
    problem(answer, 400, "body-not-json")


def test_a_body_that_is_too_large_is_refused(api: FlaskClient) -> None:
    answer = api.patch("/api/v1/machines/web-1", data=b"x" * (BODY_MAX + 1), content_type="application/json")
    problem(answer, 413, "body-too-large")


@pytest.mark.parametrize(
    ("path", "slug", "says"),
    [
        ("machines?knwon=true", "parameter-unknown", 'did you mean "known"'),
        ("machines?known=yes", "parameter-value", "must be true or false"),
        ("status?x=1", "parameter-unknown", "unknown parameter"),
        ("boots?limit=0", "parameter-value", "must be 1 to 10000"),
        ("boots?limit=many", "parameter-value", "limit=many"),
        ("events?after=-1", "parameter-value", "must be 0"),
        ("machines/web-1/explain?arch=99", "arch-unknown", "no architecture 99"),
        ("machines/web-1/explain?firmware=uefi", "firmware-unknown", "uefi"),
        ("machines/web-1/explain?packet=00", "packet-bad", "not a DHCP packet"),
        ("machines/web-1/render?what=initrd", "render-what", "initrd"),
    ],
)
def test_parameters_are_strict(api: FlaskClient, path: str, slug: str, says: str) -> None:
    body = problem(api.get(f"/api/v1/{path}"), 400, slug)
    assert says in body["title"] + body.get("hint", "")


@pytest.mark.parametrize("path", ["", "nothing", "machines/web-1/nothing", "boots//x", "machines//assignment"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_address_that_is_none(api: FlaskClient, path: str, method: str) -> None:
    problem(api.open(f"/api/v1/{path}", method=method), 404, "no-such-route")


def test_a_method_that_an_address_does_not_have(api: FlaskClient) -> None:
    answer = api.post("/api/v1/machines/web-1", json={})
    problem(answer, 405, "method-not-allowed")
    assert set(answer.headers["Allow"].split(", ")) == {"GET", "PUT", "PATCH", "DELETE"}


def test_a_slash_at_the_end_is_no_other_address(api: FlaskClient) -> None:
    assert api.get("/api/v1/machines/").status_code == 200


def test_a_fault_of_ours_tells_nothing(api: FlaskClient, fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "specs", lambda: 1 / 0)
    body = problem(api.get("/api/v1/specs"), 500, "internal-error")
    assert "division" not in str(body)


def test_a_database_that_is_locked_is_said_so(api: FlaskClient, fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    import sqlite3

    other = sqlite3.connect(fleet.config.data / "fleet.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with fleet.database.engine.connect() as conn:
        conn.exec_driver_sql("PRAGMA busy_timeout=10")
    problem(api.patch("/api/v1/machines/web-1", json={"name": "x"}), 503, "database-locked")
    assert api.get("/api/v1/machines").status_code == 200
    other.close()
