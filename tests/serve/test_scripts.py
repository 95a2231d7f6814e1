"""The memory of rendered scripts: the answer is always what rendering it now would give."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pxeserver.boot import facts, script
from pxeserver.boot import token as tokens
from pxeserver.boot.profile import profile
from pxeserver.boot.quirks import load_quirks
from pxeserver.boot.token import Token
from pxeserver.config import Boot, Config, Http, Images
from pxeserver.model import Assignment, Blob, Event, FleetView, Image, Machine
from pxeserver.serve import scripts
from pxeserver.serve.exchange import Request, Sent
from pxeserver.serve.gate import Gate
from pxeserver.serve.httpwire import parse_head
from pxeserver.serve.recorder import Recorder
from pxeserver.serve.site import Site

KEY, OWN, PEER = bytes(32), "10.0.0.1", "10.0.0.7"
MACS = tuple(f"52:54:00:00:00:0{n}" for n in range(1, 5))
IMAGE = Image(
    "sha256:" + "ab" * 32,
    "web",
    Blob("sha256:" + "11" * 32, 1),
    Blob("sha256:" + "22" * 32, 1),
    "console=ttyS0",
    "amd64",
)
VIEW = FleetView(
    1,
    {n: Machine(n, f"node{n}", (mac,), vars={"rack": f"r{n}"}) for n, mac in enumerate(MACS)},
    {mac: n for n, mac in enumerate(MACS)},
    {n: Assignment(n, "web", IMAGE.digest, n + 1) for n in range(len(MACS) - 1)},  # the last one waits
    {},
    {IMAGE.digest: IMAGE},
    {"web": IMAGE.digest},
)


class Desk:
    """Scripts over a made-up fleet; counts what is rendered."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, config: Config | None = None) -> None:
        self.now, self.rendered = 1000.0, 0
        self.events: list[Event] = []
        self.site = Site(config or Config(), load_quirks(), http_port=8080)
        self.site.see(VIEW)
        self.recorder = Recorder(KEY, self.site.config, self.events.append)
        self.scripts = scripts.Scripts(self.site, self.recorder, Gate(), lambda: self.now)
        render = script.render

        def counted(*args: object, **more: object) -> str:
            self.rendered += 1
            return render(*args, **more)  # type: ignore[arg-type]

        monkeypatch.setattr(scripts.script, "render", counted)

    def token(self, mac: str, boot: str = "0" * 16) -> Token:
        at = VIEW.assignments.get(VIEW.by_mac[mac])
        return Token(boot, mac, tokens.image_prefix(IMAGE.digest) if at else "", at.revision if at else 0)

    def ask(self, token: Token, memory: int = 1024) -> str:
        sealed = tokens.seal(KEY, token)
        query = f"mac={token.mac}&platform=efi&buildarch=x86_64&memsize={memory}&serial=a%20b"
        head = parse_head(f"GET /boot/{sealed}/script.ipxe?{query} HTTP/1.1\r\n\r\n".encode())
        given = self.scripts.of_boot(Request(head, b"", PEER, OWN, 8080), sealed, token)
        size = len(given.body)
        if given.sent is not None:
            given.sent(Sent(0, size, size, size, 0.0))
        return given.body.decode()

    def plain(self, token: Token, memory: int = 1024) -> str:
        """What the same question gives without any memory."""
        view, config = self.site.view, self.site.config
        told = facts.parse(f"mac={token.mac}&platform=efi&buildarch=x86_64&memsize={memory}&serial=a%20b")
        assert told is not None
        machine = view.machine(token.mac)
        found = profile(machine, token.mac, view, config)
        revision = found.assignment.revision if found.assignment is not None else 0
        image = tokens.image_prefix(found.image.digest) if found.image is not None else ""
        sealed = tokens.seal(KEY, replace(token, image=image, revision=revision))
        context = script.ScriptContext(
            f"http://{OWN}:8080", sealed, token.mac, told.platform, config.boot.poll_seconds, told.data
        )
        before = self.rendered
        try:
            return script.render(found, machine, context, self.site.templates)
        finally:
            self.rendered = before


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    return Desk(monkeypatch)


def test_every_machine_boot_and_fact_has_its_own_answer_and_it_is_the_plain_one(desk: Desk) -> None:
    questions = [(desk.token(mac, boot * 16), memory) for mac in MACS for boot in "ab" for memory in (512, 4096)]
    for _ in range(3):
        for token, memory in questions:
            assert desk.ask(token, memory) == desk.plain(token, memory)
    assert desk.rendered <= 2 * len(questions), "a boot is not known before its first script"


def test_a_machine_that_asks_again_is_answered_from_memory(desk: Desk) -> None:
    token = desk.token(MACS[-1])
    texts = {desk.ask(token) for _ in range(2)}
    before = desk.rendered
    texts |= {desk.ask(token) for _ in range(50)}
    assert (desk.rendered, len(texts)) == (before, 1)


@pytest.mark.parametrize(
    "change",
    [
        lambda desk: desk.site.see(replace(VIEW, generation=2, assignments={})),
        lambda desk: desk.site.see(
            replace(VIEW, machines={**VIEW.machines, 0: replace(VIEW.machines[0], cmdline=("quiet",))})
        ),
        lambda desk: setattr(desk.site, "config", Config(boot=Boot(poll_seconds=77))),
    ],
)
def test_what_changed_counts_at_once(desk: Desk, change: Callable[[Desk], None]) -> None:
    token = desk.token(MACS[0])
    before = [desk.ask(token) for _ in range(3)]
    change(desk)
    assert desk.ask(token) == desk.plain(token) != before[-1]


def test_an_edited_template_counts_within_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "ipxe" / "boot.ipxe.j2"
    own.parent.mkdir()
    own.write_text("#!ipxe\necho one {{ machine.vars.rack }}\n")
    desk = Desk(monkeypatch, Config(images=Images(templates=(str(tmp_path),))))
    token = desk.token(MACS[0])
    assert desk.ask(token) == "#!ipxe\necho one r0\n"
    own.write_text("#!ipxe\necho two {{ machine.vars.rack }}\n")
    os.utime(own, ns=(1, 1))
    desk.now += 1.1
    assert desk.ask(token) == "#!ipxe\necho two r0\n"


def test_a_template_that_fails_is_refused_and_written_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "ipxe" / "boot.ipxe.j2"
    own.parent.mkdir()
    own.write_text("#!ipxe\necho {{ nothing }}\n")
    desk = Desk(monkeypatch, Config(images=Images(templates=(str(tmp_path),))))
    assert "cannot boot" in desk.ask(desk.token(MACS[0]))
    assert desk.events[-1].data["action"] == "refuse"


def test_a_full_link_is_asked_about_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(monkeypatch, Config(http=Http(transfers_max=1)))
    first, second = desk.token(MACS[0]), desk.token(MACS[1])
    for _ in range(3):
        assert "kernel --name" in desk.ask(first), "it has a place"
        assert "kernel --name" not in desk.ask(second)
    desk.now += 1000  # the first one is not heard again
    assert desk.ask(second) == desk.plain(second)


def test_memory_is_bounded(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scripts, "ANSWERS_MAX", 5)
    for n in range(20):
        desk.ask(desk.token(MACS[0], f"{n:016x}"))
    assert len(desk.scripts._answers) == 5
