"""Places while machines load, and what is counted of those that wait."""

from __future__ import annotations

from pathlib import Path

from pxeserver.config import Http
from pxeserver.serve.gate import PLACE_SECONDS, QUEUE_SECONDS, RUNNING_SECONDS, Gate, Rates

TWO = Http(transfers_max=2)


def asks(gate: Gate, boot: str, now: float = 0.0, limits: Http = TWO) -> bool:
    """True if it is let in."""
    return gate.ask(boot, "eth0", limits, now) is None


def test_places_are_taken_kept_and_given_back() -> None:
    gate = Gate()
    assert asks(gate, "a") and asks(gate, "b") and not asks(gate, "c")
    assert asks(gate, "a", 1)  # asks again: it has its place
    for boot in "ab":
        gate.begun(boot, 2)
        gate.ended(boot, 3, last=False)
    assert not asks(gate, "c", 3)
    gate.begun("a", 4)
    gate.ended("a", 5, last=True)
    assert gate.load("eth0", TWO, 5).loading == 1
    assert asks(gate, "c", 5)
    assert gate.health(5) == {"loading": 2, "queued": 0, "told_to_wait": 2}
    assert gate.counts["let-in"] == 3


def test_the_time_that_a_machine_loads_is_learnt() -> None:
    gate = Gate()
    for n in range(30):
        asks(gate, f"{n}", n * 100)
        gate.begun(f"{n}", n * 100)
        gate.ended(f"{n}", n * 100 + (10 if n == 0 else 20), last=True)
    assert 19 < gate.load("eth0", TWO, 3000).seconds < 20


def test_who_goes_away_gives_its_place_up_and_leaves_the_queue() -> None:
    gate = Gate()
    assert asks(gate, "silent") and asks(gate, "slow") and not asks(gate, "c")
    gate.begun("slow", 1)
    assert not asks(gate, "c", PLACE_SECONDS - 1)
    assert asks(gate, "c", PLACE_SECONDS)  # the silent one's place; the slow one still loads
    gate.ended("silent", PLACE_SECONDS, last=True)  # too late: changes nothing
    assert not asks(gate, "d", PLACE_SECONDS + 1)
    gate.begun("c", PLACE_SECONDS + 1)
    assert not asks(gate, "d", 200)
    assert gate.load("eth0", TWO, 200 + QUEUE_SECONDS).queued == 0
    assert gate.load("eth0", TWO, PLACE_SECONDS + RUNNING_SECONDS).loading == 0
    assert gate.counts["gone"] == 3


def test_the_link_is_looked_at_only_if_its_speed_is_known() -> None:
    asked: list[str] = []

    def rate(interface: str, now: float) -> float:
        asked.append(interface)
        return 950.0

    gate = Gate(rate)
    assert all(asks(gate, f"{n}", limits=Http()) for n in range(8)) and asked == []
    assert not asks(gate, "9", limits=Http(link_mbit=1000)) and asked == ["eth0"]


def test_rates_follow_from_the_kernels_counters(tmp_path: Path) -> None:
    table = tmp_path / "dev"

    def sent(count: int) -> None:
        rows = [f"{name}: 1 2 3 4 5 6 7 8 {n} 10" for name, n in (("lo", 5), ("  eth0", count))]
        table.write_text("\n".join(["head", "head", *rows]))

    rates = Rates(table)
    sent(1000)
    assert rates.of("eth0", 1.0) == 0.0
    sent(1000 + 125_000_000)
    assert rates.of("eth0", 1.1) == 0.0  # too soon to look again
    assert rates.of("eth0", 2.0) == 1000.0
    assert rates.of("nosuch0", 2.0) == 0.0
    sent(0)  # a counter that began anew
    assert rates.of("eth0", 3.0) == 0.0
    assert Rates(tmp_path / "missing").of("eth0", 1.0) == 0.0


def test_the_kernel_has_such_a_table() -> None:
    assert Rates()._sent("lo") >= 0 and "lo:" in Path("/proc/thread-self/net/dev").read_text()
