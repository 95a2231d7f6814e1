"""TFTP as firmware speaks it, against servers good and bad, over a network that loses and mixes up."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simlab import PROXY, Tftp, World

from pxeserver.sim import tftp
from pxeserver.sim.effects import Stopped, Use
from pxeserver.sim.faults import Faults
from pxeserver.sim.firmware import FIRMWARE, TftpHabit
from pxeserver.wire import tftp as wire

HABITS = {name: FIRMWARE[name].tftp for name in ("edk2", "bios", "uboot", "rpi")}
FILE = bytes(range(256)) * 40


def get(server: Tftp, habit: TftpHabit, fates: Callable[[], tuple[float, ...]] = lambda: (0.0,)) -> bytes:
    world = World((server,), fates=fates)

    def play():  # type: ignore[no-untyped-def]
        yield Use("10.77.0.9", "")
        return (yield from tftp.fetch(PROXY, "f", habit))

    return world.play(play())


@pytest.mark.parametrize("habit", HABITS.values(), ids=HABITS)
@pytest.mark.parametrize("size", [0, 1, 511, 512, 1432, 1468, 5 * 1468, 10_000])
def test_every_firmware_gets_files_of_every_size(habit: TftpHabit, size: int) -> None:
    assert get(Tftp({"f": FILE[:size]}), habit) == FILE[:size]
    assert get(Tftp({"f": FILE[:size]}, options=False), habit) == FILE[:size]


def test_edk2_asks_for_the_size_first_and_breaks_that_off() -> None:
    server = Tftp({"f": FILE})
    get(server, HABITS["edk2"])
    probe, real = server.seen
    assert dict(probe.options) == {"tsize": "0", "blksize": "1468", "windowsize": "4"}
    assert dict(real.options) == {"blksize": "1468", "windowsize": "4"}


def test_a_missing_file_is_told_apart() -> None:
    with pytest.raises(tftp.NoFile, match="error 1 no such file"):
        get(Tftp({}), HABITS["bios"])


def test_silence_is_given_up() -> None:
    class Dead(Tftp):
        def udp(self, *_: object) -> list[tuple[float, bytes, tuple[str, int]]]:
            return []

    for habit in HABITS.values():
        with pytest.raises(Stopped, match="no answer for"):
            get(Dead({}), habit)


def spoiled(change: Callable[[bytes], bytes], habit: str = "bios") -> str:
    with pytest.raises(Stopped) as stopped:
        get(Tftp({"f": FILE}, spoil=change), HABITS[habit])
    return stopped.value.why


def test_servers_that_break_the_rules() -> None:
    def oack(**options: str) -> Callable[[bytes], bytes]:
        return lambda raw: wire.pack_oack(options) if raw[1] == wire.OACK else raw

    assert "blksize 8192, asked for was 1432" in spoiled(oack(blksize="8192"))
    assert "windowsize=4, which was not asked for" in spoiled(oack(windowsize="4"))
    assert "windowsize 64, asked for was 4" in spoiled(oack(windowsize="64"), "edk2")
    assert "10240 bytes came, 5 were announced" in spoiled(oack(tsize="5", blksize="1432"))
    assert "nothing more after block 2" in spoiled(lambda raw: b"" if raw[:4] > b"\0\3\0\2" and raw[1] == 3 else raw)
    assert "error 0 broken disk" in spoiled(lambda raw: wire.pack_error(0, "broken disk"))


def test_a_cut_file_is_noticed_by_its_size() -> None:
    cut = spoiled(lambda raw: raw[:100] if raw[1] == wire.DATA and raw[3] == 3 else raw)
    assert "bytes came, 10240 were announced" in cut


@given(st.sampled_from(sorted(HABITS)), st.integers(0, 2**32), st.integers(0, 6000))
def test_a_bad_network_costs_time_but_no_bytes(name: str, seed: int, size: int) -> None:
    """Whatever is lost, doubled or late: the file is whole, or the firmware gives up; it is never another file."""
    rng = random.Random(seed)
    faults = Faults(loss=0.1, duplicate=0.1, reorder=0.2, delay=0.01)
    try:
        assert get(Tftp({"f": FILE[:size]}), HABITS[name], lambda: faults.fate(rng)) == FILE[:size]
    except Stopped as stopped:
        assert "tries" in stopped.why


def test_five_percent_of_loss_are_no_reason_to_fail() -> None:
    lost = 0
    for seed in range(100):
        rng = random.Random(seed)
        try:
            get(Tftp({"f": FILE}), HABITS["bios"], lambda rng=rng: Faults(loss=0.05).fate(rng))
        except Stopped:
            lost += 1
    assert lost == 0


def test_faults_are_what_they_say() -> None:
    rng = random.Random(3)
    assert Faults().fate(rng) == (0.0,)
    assert Faults(loss=1.0).fate(rng) == ()
    assert Faults(duplicate=1.0, delay=0.5).fate(rng) == (0.5, 0.53)
    assert Faults(reorder=1.0).fate(rng) == (0.03,)
    fates = [Faults(loss=0.05).fate(rng) for _ in range(10_000)]
    assert 400 < fates.count(()) < 600
    assert [Faults(loss=0.5).fate(random.Random(7)) for _ in range(3)].count(()) in (0, 3)
