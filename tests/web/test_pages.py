"""The pages over a real fleet, without a browser: what they show, what their forms do, who may send them."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from pxeserver import config as configuration
from pxeserver.fleet.fleet import Fleet, open_fleet
from pxeserver.fleet.values import AssignOrder, MachineEdit, MachineRow
from pxeserver.model import Blob, Event, Image, Stage
from pxeserver.web import sse
from pxeserver.web.app import create_app
from pxeserver.web.listed import Listed

MAC, OTHER = "52:54:00:00:00:01", "52:54:00:00:00:02"
BOOT = "0102030405060708"


class World:
    """A fleet in a folder of its own and a client of its pages."""

    def __init__(self, folder: Path, **flags: object) -> None:
        self.config = configuration.load(None, flags={"server.data": str(folder), **flags}, environ={})
        self.fleet: Fleet = open_fleet(self.config)
        self.app = create_app(self.fleet, self.config)
        self.client: FlaskClient = self.app.test_client()

    def get(self, path: str, status: int = 200) -> str:
        answer = self.client.get(path)
        assert answer.status_code == status, answer.text
        return answer.text

    def post(self, path: str, data: dict[str, str] | None = None, **more: object) -> TestResponse:
        """A form as a browser sends it: with the token of the page."""
        token = re.search(r'name="csrf" value="([0-9a-f]+)"', self.get(f"/machines/{MAC}"))
        assert token
        return self.client.post(path, data={"csrf": token[1], **(data or {})}, **more)  # type: ignore[arg-type]

    def image(self, spec: str, number: int, raw_size: int = 0) -> Image:
        store = self.fleet.catalogue.store
        files = [store.add_bytes(f"{spec} {number} {kind}".encode()) for kind in ("kernel", "initrd", "whole")]
        blobs = [Blob(f.digest, f.size, raw_size or f.size) for f in files]
        image = Image(blobs[2].digest, spec, blobs[0], blobs[1], "console=ttyS0", "amd64")
        return self.fleet.catalogue.add(image, spec_text=b"{}", created=time.time() - 100 + number)

    def event(self, stage: Stage, mac: str = MAC, boot: str = BOOT, **more: object) -> None:
        self.fleet.record([Event(time.time(), str(stage), mac, boot, stage, **more)])  # type: ignore[arg-type]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.fleet.close()


@pytest.fixture
def named(world: World) -> World:
    """One machine, web-1, and one image of web."""
    world.fleet.add_machine(MachineEdit(name="web-1", macs=(MAC,)))
    world.image("web", 1)
    return world


class Outline(HTMLParser):
    """What a page is made of: open elements that were never closed, ids, labels, form controls."""

    VOID = frozenset({"meta", "link", "input", "img", "br", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.labelled: set[str] = set()
        self.controls: list[tuple[str, dict[str, str | None], bool]] = []
        self.inline: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.ids += [values["id"]] if values.get("id") else []  # type: ignore[list-item]
        self.inline += [f"{tag} {name}" for name in values if name == "style" or re.match(r"on[a-z]+$", name)]
        self.inline += [tag] if tag == "style" or (tag == "script" and "src" not in values) else []
        if tag == "label" and values.get("for"):
            self.labelled.add(str(values["for"]))
        if tag in ("input", "select", "textarea") and values.get("type") != "hidden":
            self.controls.append((tag, values, "label" in self.open))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """<rect .../> inside an svg."""

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()


def busy(world: World) -> World:
    """Something on every page: a boot that is stuck, an unknown machine that waits."""
    world.fleet.assign([MAC], AssignOrder("web", args=("quiet",), reason="because", by="me"))
    digest = world.fleet.images()[0].digest
    world.event(Stage.OFFER, data={"arch": "amd64", "memory": "512", "style": "binl"}, peer="10.0.0.9")
    world.event(Stage.SCRIPT, data={"image": digest})
    world.event(Stage.INITRD, bytes=54 << 20, seconds=1.5)
    world.fleet.record([Event(time.time(), "cause", MAC, BOOT, text="cut short", data={"cause": "initrd-cut-short"})])
    world.event(Stage.OFFER, OTHER, "1112131415161718", data={"arch": "amd64"})
    return world


PAGES = ("/", "/?q=web&stage=booting&spec=web&sort=since", f"/machines/{MAC}", "/machines/web-1", f"/machines/{OTHER}",
         "/boots", f"/boots/{BOOT}", "/images", "/images/web", "/?refresh=5", "/nowhere")  # fmt: skip


@pytest.mark.parametrize("path", PAGES)
def test_every_page_is_well_formed_labelled_and_without_inline_code(named: World, path: str) -> None:
    text = busy(named).get(path, 404 if path == "/nowhere" else 200)
    outline = Outline(text)
    assert not outline.open
    assert len(outline.ids) == len(set(outline.ids))
    assert not outline.inline
    for tag, values, inside in outline.controls:
        assert inside or values.get("id") in outline.labelled, (tag, values)


@pytest.mark.parametrize("path", ["/", "/boots", "/images"])
def test_an_empty_fleet_tells_the_next_step(world: World, path: str) -> None:
    text = world.get(path)
    assert 'class="card empty"' in text or 'class="empty"' in text
    assert "pxeserver " in text
    assert not Outline(text).open


def test_the_fleet_shows_name_mac_image_stage_and_cause(named: World) -> None:
    text = busy(named).get("/")
    row = text[text.index('id="m-525400000001"') :].partition("</tr>")[0]
    for part in (
        "web-1",
        MAC,
        named.fleet.images()[0].digest.removeprefix("sha256:")[:12],
        "booting: initrd",
        "initrd, 5 of 8",
    ):
        assert part in row, part
    assert 'id="u-525400000002"' in text


def test_a_newer_build_is_pointed_out(named: World) -> None:
    named.fleet.assign([MAC], AssignOrder("web"))
    assert "newer built" not in named.get("/")
    named.image("web", 2)
    assert "newer built" in named.get("/")


def test_a_machine_page_says_what_it_boots_and_why(named: World) -> None:
    text = busy(named).get("/machines/web-1")
    for part in ("assigned", "quiet", "#!ipxe", "BOOTIF=", "initrd-cut-short", "512.0 MiB", "because", "54.0 MiB"):
        assert part in text, part


def test_a_boot_page_lists_every_event(named: World) -> None:
    text = busy(named).get(f"/boots/{BOOT}")
    events = text[text.index('id="events"') :]
    for part in ("offer", "initrd", "54.0 MiB", "1.5s", "10.0.0.9", "style=binl", "cut short"):
        assert part in events, part


def test_what_a_machine_says_about_itself_is_text_and_nothing_else(named: World) -> None:
    evil = "<script>alert(1)</script>"
    named.event(Stage.OFFER, data={"product": evil, "serial": '"><img src=x>'}, text=evil, peer=evil)
    for path in ("/", f"/machines/{MAC}", f"/boots/{BOOT}", f"/?q={evil}", f"/{evil}"):
        text = named.client.get(path).text
        assert evil not in text and "<img src=x>" not in text


def test_assigning_leads_back_with_what_changed_and_how_to_undo_it(named: World) -> None:
    digest = named.fleet.images()[0].digest
    answer = named.post(f"/machines/{MAC}/assign", {"image": digest, "args": "quiet console=ttyS1", "reason": "test"})
    assert answer.status_code == 303
    text = named.get(answer.location)
    note = text[text.index('id="note"') :].partition("</div>")[0]
    assert "web-1 changed" in note and "pxeserver unassign" in note
    assert named.get(answer.location).count('id="note"') == 1  # it stays while the page draws itself anew
    row = named.fleet.machines()[0]
    assert row.assignment and (row.assignment.image, row.assignment.args) == (digest, ("quiet", "console=ttyS1"))
    answer = named.post(f"/machines/{MAC}/unassign")
    assert answer.status_code == 303 and named.fleet.machines()[0].assignment is None


def test_a_machine_that_is_too_small_is_refused_unless_the_box_is_ticked(named: World) -> None:
    image = named.image("big", 1, raw_size=1 << 30)
    named.event(Stage.OFFER, data={"memory": "512"})
    page = named.post(f"/machines/{MAC}/assign", {"image": image.digest})
    assert page.status_code == 409 and "memory-too-small" in page.text
    assert named.post(f"/machines/{MAC}/assign", {"image": image.digest, "force": "1"}).status_code == 303
    assert "Memory while unpacked" in named.get(f"/images/{image.digest}")


def test_following_binds_the_spec(named: World) -> None:
    first = named.fleet.images()[0]
    named.post(f"/machines/{MAC}/assign", {"image": first.digest, "follow": "1"})
    second = named.image("web", 2)
    row = named.fleet.machines()[0]
    assert row.assignment and row.assignment.follow and row.assignment.image == second.digest


def test_an_unknown_machine_gets_a_name_and_an_image_at_once(named: World) -> None:
    named.event(Stage.OFFER, OTHER)
    digest = named.fleet.images()[0].digest
    answer = named.post(f"/machines/{OTHER}/adopt", {"name": "db-1", "image": digest})
    assert answer.status_code == 303
    text = named.get(answer.location)
    assert "name: none → db-1" in text and 'id="u-525400000002"' not in text
    machine = named.fleet.find("db-1")
    assert machine.known and machine.mac == OTHER
    assert named.fleet.view().assignments[machine.id].image == digest


def test_pins_and_names(named: World) -> None:
    assert named.post(f"/machines/{MAC}/pin", {"style": "pxe10", "loader": ""}).status_code == 303
    assert named.fleet.find(MAC).pin.style == "pxe10"
    assert 'value="pxe10" selected' in named.get(f"/machines/{MAC}")
    assert named.post(f"/machines/{MAC}/rename", {"name": "web-9"}).status_code == 303
    assert named.fleet.find(MAC).name == "web-9"


@pytest.mark.parametrize(
    ("path", "data", "status", "slug"),
    [
        (f"/machines/{MAC}/assign", {"image": ""}, 400, "image-missing"),
        (f"/machines/{MAC}/assign", {"image": "nosuch"}, 404, "spec-not-found"),
        (f"/machines/{MAC}/assign", {"image": "web", "args": "'open"}, 400, "args-quotes"),
        ("/machines/nosuch/unassign", {}, 404, "machine-not-found"),
        (f"/machines/{MAC}/adopt", {}, 400, "adopt-nothing"),
        (f"/machines/{MAC}/pin", {"style": "nosuch"}, 404, "style-not-found"),
        (f"/machines/{MAC}/rename", {"name": "no good"}, 400, "machine-name"),
    ],
)
def test_failures_are_pages_with_the_slug_of_the_api(
    named: World, path: str, data: dict[str, str], status: int, slug: str
) -> None:
    answer = named.post(path, data)
    assert answer.status_code == status
    assert f"error[{slug}]" in answer.text and "<h1>" in answer.text
    assert not Outline(answer.text).open


@pytest.mark.parametrize(
    "path", ["/machines/nosuch", "/boots/ffff", "/images/ffffffff", "/static/0/nosuch.css", "/a/b"]
)
def test_what_is_not_there_is_a_page_too(named: World, path: str) -> None:
    answer = named.client.get(path)
    assert answer.status_code == 404 and "<h1>" in answer.text and answer.headers["X-Frame-Options"] == "DENY"


def test_the_api_keeps_its_own_errors(named: World) -> None:
    assert named.client.get("/api/v1/nosuch").is_json


def test_a_fault_of_ours_is_logged_and_told_without_details(
    named: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(named.fleet, "boots", lambda **_: 1 / 0)
    text = named.get("/boots", 500)
    assert "internal-error" in text and "ZeroDivisionError" not in text
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize(
    ("data", "headers"),
    [
        ({}, {}),
        ({"csrf": "0" * 32}, {}),
        ({"csrf": "ö"}, {}),
        (None, {"Sec-Fetch-Site": "cross-site"}),
        (None, {"Origin": "http://evil.example"}),
        (None, {"Host": "evil.example"}),
    ],
)
def test_a_form_from_elsewhere_changes_nothing(
    named: World, data: dict[str, str] | None, headers: dict[str, str]
) -> None:
    path = f"/machines/{MAC}/rename"
    if data is None:
        answer = named.post(path, {"name": "taken"}, headers=headers)
    else:
        answer = named.client.post(path, data={**data, "name": "taken"}, headers=headers)
    assert answer.status_code in (403, 409)
    assert named.fleet.find(MAC).name == "web-1"


def test_an_open_form_survives_a_restart_of_the_server(named: World) -> None:
    token = re.search(r'name="csrf" value="([0-9a-f]+)"', named.get(f"/machines/{MAC}"))
    assert token
    again = create_app(named.fleet, named.config).test_client()
    assert again.post(f"/machines/{MAC}/rename", data={"csrf": token[1], "name": "web-2"}).status_code == 303


def test_headers_forbid_framing_sniffing_and_foreign_code(named: World) -> None:
    for path in ("/", "/images", "/nowhere", f"/machines/{MAC}"):
        headers = named.client.get(path).headers
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
        assert headers["X-Frame-Options"] == "DENY" and headers["X-Content-Type-Options"] == "nosniff"
        assert "Set-Cookie" not in headers


def test_other_hosts_need_the_token(tmp_path: Path) -> None:
    world = World(tmp_path, **{"admin.token": "secret"})
    far = {"REMOTE_ADDR": "10.0.0.7"}
    try:
        asked = world.client.get("/", environ_base=far)
        assert asked.status_code == 401 and "Basic" in asked.headers["WWW-Authenticate"]
        assert world.client.get("/", environ_base=far, auth=("x", "secret")).status_code == 200
        assert world.client.get(sse.PATH, environ_base=far).status_code == 401
    finally:
        world.fleet.close()


def test_static_files_are_kept_for_ever_and_are_ours(named: World) -> None:
    text = named.get("/")
    links = re.findall(r'(?:href|src)="(/static/[^"]+)"', text)
    assert len(links) >= 5 and not re.search(r'(?:href|src)="(?:https?:)?//', text)
    for link in links:
        answer = named.client.get(link)
        assert answer.status_code == 200 and "immutable" in answer.headers["Cache-Control"]
        answer.close()
    stale = named.client.get("/static/0123/style.css")
    assert stale.headers["Cache-Control"] == "no-cache"
    stale.close()


def test_a_users_own_template_comes_first(tmp_path: Path) -> None:
    own = tmp_path / "own" / "web"
    own.mkdir(parents=True)
    (own / "boots.html").write_text("mine: {{ page.earlier|length }}")
    world = World(tmp_path / "data", **{"images.templates": [str(tmp_path / "own")]})
    try:
        assert world.get("/boots") == "mine: 0"
    finally:
        world.fleet.close()


def test_a_page_carries_the_moment_that_it_shows(named: World) -> None:
    def cursor() -> sse.Cursor:
        found = re.search(r'hx-sse:connect="/events\?since=([0-9.]+)"', named.get("/"))
        assert found
        parsed = sse.parse_cursor(found[1])
        assert parsed
        return parsed

    before = cursor()
    assert sse.look(named.fleet, before).topics == frozenset()
    named.event(Stage.OFFER)
    assert sse.look(named.fleet, before).topics >= {"fleet", sse.topic(MAC)}
    middle = cursor()
    named.fleet.assign([MAC], AssignOrder("web"))
    assert sse.look(named.fleet, middle).topics == {"fleet", "resync"}
    assert sse.look(named.fleet, None).topics == {"fleet", "resync"}


def test_the_kept_list_is_what_the_fleet_says(named: World) -> None:
    kept = Listed(named.fleet)

    def same() -> None:
        assert sorted(kept.machines(), key=lambda r: r.id) == sorted(named.fleet.machines(), key=lambda r: r.id)

    same()
    named.event(Stage.OFFER)
    same()
    named.event(Stage.KERNEL)
    named.event(Stage.OFFER, OTHER, "1112131415161718")
    same()
    named.fleet.assign([MAC], AssignOrder("web"))
    same()
    named.fleet.remove_machine(OTHER)
    same()


def test_an_event_of_one_machine_reads_one_machine(named: World, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Listed(named.fleet)
    named.event(Stage.OFFER)
    kept.machines()
    asked: list[object] = []
    real = named.fleet.machines

    def machines(*, ids: list[int] | None = None) -> tuple[MachineRow, ...]:
        asked.append(ids)
        return real(ids=ids)

    monkeypatch.setattr(named.fleet, "machines", machines)
    kept.machines()
    assert asked == []
    named.event(Stage.KERNEL)
    assert [r.boot.stage for r in kept.machines() if r.boot] == [Stage.KERNEL]
    assert asked == [[named.fleet.find(MAC).id]]


def test_two_thousand_machines_take_as_many_queries_as_two(world: World) -> None:
    from sqlalchemy import event

    def queries(path: str) -> int:
        count = 0

        def seen(*_: object) -> None:
            nonlocal count
            count += 1

        event.listen(world.fleet.database.engine, "before_cursor_execute", seen)
        world.get(path)
        event.remove(world.fleet.database.engine, "before_cursor_execute", seen)
        return count

    def add(first: int, last: int) -> None:
        world.fleet.record(
            [
                Event(time.time(), "up", f"52:54:00:01:{n // 256:02x}:{n % 256:02x}", f"{n:016x}", Stage.UP)
                for n in range(first, last)
            ]
        )

    add(0, 2)
    world.get("/")
    few = queries("/")
    add(2, 2000)
    world.get("/")
    assert queries("/") <= few
