"""What each MAC did lately: when a boot begins, what moves it on, what is written down of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import count

import pytest
from servelab import captured

from pxeserver.boot import token as tokens
from pxeserver.boot.answer import Arrival
from pxeserver.boot.decide import BootRequest, Decision, request_of
from pxeserver.boot.token import Token
from pxeserver.config import Boot, Config
from pxeserver.model import Event, Recent, Stage
from pxeserver.serve.recorder import Delivery, Recorder

MAC = "52:54:00:00:00:01"
NOW = 1000.0
PEER = "10.77.9.1"
DIGEST = "sha256:" + "ab" * 32


class Book:
    """A recorder whose events are kept, with boot ids 1, 2, 3, .."""

    def __init__(self, maximum: int = 100) -> None:
        self.events: list[Event] = []
        numbers = count(1)
        self.recorder = Recorder(
            bytes(32),
            Config(boot=Boot(silence_seconds=300, stuck_seconds=600)),
            self.events.append,
            random=lambda n: next(numbers).to_bytes(n, "big"),
            maximum=maximum,
        )

    def discover(self, now: float, name: str = "plain-rom-bios.discover", mac: str = MAC) -> Recent:
        packet = captured(name, mac)
        request = request_of(packet, 4011 if name.endswith("4011") else 67)
        assert request is not None
        decision = Decision(
            "answer", (), "loader" if not request.ipxe else "script", "pxe10", "undionly.kpxe", image=DIGEST, revision=3
        )
        if request.ipxe:
            decision = Decision("answer", (), "script", "binl", image=DIGEST, revision=3)
        recent = self.recorder.before(request, now)
        self.recorder.answered(request, decision, recent, packet.pack(), Arrival("10.77.0.1", 2, 67, PEER), now)
        after = self.recorder.recent(mac)
        assert after is not None
        return after

    def loader(self, now: float, name: str = "undionly.kpxe") -> None:
        self.recorder.sent(MAC, "", "loader", Delivery(name, PEER, 10, 10, 0.1), now)

    def script(self, now: float, action: str = "boot") -> None:
        self.recorder.script(self.token(), action, PEER, now)

    def token(self) -> Token:
        return Token(self.now().boot, MAC)

    def now(self) -> Recent:
        recent = self.recorder.recent(MAC)
        assert recent is not None
        return recent

    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]


@pytest.fixture
def book() -> Book:
    return Book()


def test_the_first_discover_begins_a_boot_whose_token_opens(book: Book) -> None:
    recent = book.discover(NOW)
    assert (recent.boot, recent.started, recent.stage, recent.discovers) == ("0" * 15 + "1", NOW, Stage.OFFER, 1)
    sealed = book.recorder.current([MAC], NOW, known=False)
    assert tokens.open(bytes(32), sealed) == Token(recent.boot, MAC, "ab" * 16, 3)
    assert [(e.kind, e.stage, e.boot, e.data["port"], e.data["kind"]) for e in book.events] == [
        ("offer", Stage.OFFER, recent.boot, "67", "loader")
    ]


def test_looking_at_a_packet_changes_nothing_until_it_is_answered(book: Book) -> None:
    request = request_of(captured("plain-rom-bios.discover", MAC), 67)
    assert request is not None
    book.recorder.before(request, NOW)
    assert book.recorder.recent(MAC) is None


@pytest.mark.parametrize(
    ("steps", "boots"),
    [
        (lambda b: [b.discover(NOW + 4), b.discover(NOW + 12)], 1),  # the firmware repeats itself
        (lambda b: [b.loader(NOW + 5), b.discover(NOW + 9, "undionly-ipxe2-bios.discover")], 1),  # the chained iPXE
        (lambda b: [b.loader(NOW + 5), b.discover(NOW + 60)], 1),  # the loader returned
        (lambda b: [b.discover(NOW + 299)], 1),
        (lambda b: [b.discover(NOW + 301)], 2),  # after silence
        (lambda b: [b.script(NOW + 5), b.discover(NOW + 9)], 2),  # switched off while it waited
        (lambda b: [b.recorder.asked(b.token(), "kernel", NOW + 5), b.discover(NOW + 9)], 2),
    ],
)
def test_when_a_boot_begins(book: Book, steps: Callable[[Book], object], boots: int) -> None:
    book.discover(NOW)
    steps(book)
    assert len({event.boot for event in book.events}) == boots


def test_discovers_are_counted_until_a_sign_of_life(book: Book) -> None:
    for second in range(3):
        book.discover(NOW + second)
    assert book.now().discovers == 3
    book.discover(NOW + 5, "plain-rom-bios.4011")
    assert book.now().discovers == 0
    book.discover(NOW + 6)
    book.loader(NOW + 7)
    assert book.now().discovers == 0


def test_copies_of_a_discover_count_once(book: Book) -> None:
    """A second interface in the same network, or a relay beside the wire, brings each of them twice."""
    for second in (0, 4, 12):
        book.discover(NOW + second)
        book.discover(NOW + second + 0.002)
    assert book.now().discovers == 3
    assert book.kinds() == ["offer"] * 6


def test_cycles_are_loaders_without_a_script_between_them(book: Book) -> None:
    for second in (0, 60):
        book.discover(NOW + second)
        book.loader(NOW + second + 5)
    assert (book.now().loader_cycles, book.now().loader_at) == (2, NOW + 65)
    book.script(NOW + 70)
    assert book.now().loader_cycles == 0


def test_a_file_that_was_not_offered_is_no_loader(book: Book) -> None:
    book.discover(NOW)
    book.loader(NOW + 1, "revocations.efi")
    assert (book.now().loader_cycles, book.now().stage) == (0, Stage.OFFER)
    assert book.kinds() == ["offer", "note"]


def test_the_image_is_settled_from_the_kernel_on(book: Book) -> None:
    book.discover(NOW)
    token = book.token()
    assert not book.recorder.began(token)
    book.script(NOW + 1)
    assert not book.recorder.began(token)
    book.recorder.asked(token, "kernel", NOW + 2)
    assert book.recorder.began(token)
    assert book.recorder.began(Token("f" * 16, MAC)), "another server's boot"


def test_the_booted_system_is_heard_only_after_its_initrd(book: Book) -> None:
    book.discover(NOW)
    book.recorder.system_heard(MAC, PEER, NOW + 1)
    token = book.token()
    for file in ("kernel", "initrd"):
        book.recorder.sent(MAC, token.boot, file, Delivery(file, PEER, 5, 5, 0.1), NOW + 2)
    book.recorder.system_heard(MAC, PEER, NOW + 700)
    assert book.now().stage is Stage.INITRD
    book.recorder.system_heard(MAC, PEER, NOW + 60)
    book.recorder.system_heard(MAC, PEER, NOW + 61)
    assert book.kinds() == ["offer", "kernel", "initrd", "network"]
    assert book.events[-1].data == {"ip": PEER}


def test_a_waiting_machine_is_written_down_now_and_then(book: Book) -> None:
    book.discover(NOW)
    for second in range(0, 60, 5):
        book.script(NOW + second, "entry")
        book.script(NOW + second, "wait")
    waits = [event.at - NOW for event in book.events if event.data.get("action") == "wait"]
    assert waits == [0, 30]
    book.script(NOW + 61, "boot")
    assert book.events[-1].data["action"] == "boot"


def test_the_same_boot_script_again_is_written_down_now_and_then_another_image_at_once(book: Book) -> None:
    book.discover(NOW)
    token = book.token()
    for second in range(0, 40, 5):
        book.recorder.script(replace(token, image="ab" * 16), "boot", PEER, NOW + second)
    book.recorder.script(replace(token, image="cd" * 16), "boot", PEER, NOW + 41)
    assert [event.at - NOW for event in book.events if event.kind == "script"] == [0, 30, 41]


def test_what_a_proxy_sends_is_written_down_once_as_asked_for(book: Book) -> None:
    book.discover(NOW)
    token = book.token()
    for second, file in enumerate(("kernel", "kernel", "initrd", "initrd")):
        book.recorder.handed(token, file, "f00", PEER, "10.0.0.9", NOW + second)  # type: ignore[arg-type]
    assert [(e.kind, e.stage, e.bytes, e.data) for e in book.events[1:]] == [
        ("kernel", Stage.KERNEL, 0, {"proxy": "10.0.0.9"}),
        ("initrd", Stage.INITRD, 0, {"proxy": "10.0.0.9"}),
    ]
    assert book.recorder.began(token)


def test_a_whole_image_handed_over_is_kernel_and_initrd(book: Book) -> None:
    book.discover(NOW)
    book.recorder.handed(book.token(), "uki", "f00", PEER, "10.0.0.9", NOW + 1)
    assert book.kinds() == ["offer", "kernel", "initrd"]


def test_a_boot_before_a_restart_goes_on_by_its_token(book: Book) -> None:
    token = Token("e" * 16, MAC)
    book.recorder.sent(MAC, token.boot, "initrd", Delivery("initrd", PEER, 5, 5, 0.1), NOW)
    assert (book.now().boot, book.now().stage) == (token.boot, Stage.INITRD)


def test_a_late_word_of_an_old_boot_does_not_move_the_new_one(book: Book) -> None:
    book.discover(NOW)
    old = book.token()
    book.discover(NOW + 400)
    book.recorder.reported(old, Stage.UP, PEER, NOW + 401, {}, "")
    assert book.now().stage is Stage.OFFER
    assert book.events[-1].boot == old.boot


def test_a_local_boot_is_closed(book: Book) -> None:
    book.discover(NOW)
    book.script(NOW + 1, "local")
    assert book.events[-1].data["result"] == "local"


def test_a_broken_transfer_says_of_what_and_how_far(book: Book) -> None:
    book.discover(NOW)
    book.recorder.stopped(MAC, "", "loader", Delivery("undionly.kpxe", PEER, 7, 10, 1.0, "silence"), NOW + 1)
    event = book.events[-1]
    assert (event.kind, event.bytes, event.text, event.boot) == ("note", 7, "silence", book.now().boot)
    assert event.data == {"what": "stopped", "file": "loader", "name": "undionly.kpxe", "size": "10"}


def test_an_ignored_machine_is_noted_once_per_silence(book: Book) -> None:
    request = request_of(captured("plain-rom-bios.discover", MAC), 67)
    assert isinstance(request, BootRequest)
    for second in (0, 4, 299, 301):
        book.recorder.ignored(request, Decision("ignore", (), why="policy-ignore"), NOW + second)
    assert [event.at - NOW for event in book.events] == [0, 301]


def test_memory_is_bounded() -> None:
    book = Book(maximum=10)
    for n in range(50):
        book.discover(NOW + n, mac=f"52:54:00:00:01:{n:02x}")
        book.recorder.addressed(MAC, f"10.0.0.{n}")
    assert book.recorder.recent("52:54:00:00:01:00") is None
    assert book.recorder.recent("52:54:00:00:01:31") is not None
    assert book.recorder.mac_of("10.0.0.0") is None
    assert book.recorder.mac_of("10.0.0.49") == MAC
