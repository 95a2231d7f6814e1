"""Who may load now: the published rule, its bounds, and that it spreads machines out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pxeserver.boot.admission import FEW, WAIT_MAX, WAIT_MIN, Load, admit
from pxeserver.config import Http

TEN = Http(transfers_max=10)
GIGABIT = Http(transfers_max=1000, link_mbit=1000)


def boots(count: int) -> list[str]:
    return [f"{n:016x}" for n in range(count)]


def waits(count: int, load: Load, limits: Http = TEN, told: int = 0) -> list[int]:
    found = [admit(boot, told, load, limits) for boot in boots(count)]
    return [wait.seconds for wait in found if wait is not None]


def test_as_many_as_there_are_places_are_let_in() -> None:
    assert admit("ab", 0, Load(loading=9, queued=500), TEN) is None
    wait = admit("ab", 0, Load(loading=10), TEN)
    assert wait is not None and wait.reason == "10 machines are loading, http.transfers_max is 10"


def test_a_full_link_lets_nobody_more_in_but_a_few_always() -> None:
    assert admit("ab", 0, Load(loading=50, mbit=899), GIGABIT) is None
    wait = admit("ab", 0, Load(loading=50, mbit=910), GIGABIT)
    assert wait is not None and wait.reason == "the link carries 910 Mbit/s, http.link_mbit is 1000"
    assert admit("ab", 0, Load(loading=FEW - 1, mbit=1000), GIGABIT) is None
    assert admit("ab", 0, Load(loading=50, mbit=9999), Http(transfers_max=1000)) is None  # not looked at


def test_the_wait_is_about_the_time_until_its_turn() -> None:
    short, long = waits(500, Load(10, 0, 20.0)), waits(500, Load(10, 20, 20.0))
    assert 19 < sum(short) / 500 < 21 and 57 < sum(long) / 500 < 63
    assert max(waits(500, Load(10, 4000, 60.0))) <= round(WAIT_MAX * 1.5)
    assert min(waits(500, Load(10, 0, 0.01))) >= round(WAIT_MIN / 2)


def test_the_machines_of_a_storm_ask_at_different_times() -> None:
    seconds = waits(1000, Load(10, 100, 30.0))
    assert len(set(seconds)) > 80
    assert max(seconds.count(second) for second in set(seconds)) < 40


def test_who_was_told_often_asks_sooner_and_nobody_asks_too_often() -> None:
    load = Load(10, 100, 30.0)
    means = [sum(waits(200, load, told=told)) / 200 for told in range(5)]
    assert means == sorted(means, reverse=True) and means[0] > 3 * means[4]
    # 5000 machines that wait ask 100 times a second, however often they were told already
    late = waits(5000, Load(10, 5000, 1.0), told=99)
    assert 90 < sum(1 / seconds for seconds in late) < 130


@given(
    st.text(max_size=20),
    st.integers(0, 10_000),
    st.builds(Load, st.integers(0, 10**5), st.integers(0, 10**5), st.floats(0, 10**6), st.floats(0, 10**6)),
    st.builds(Http, transfers_max=st.integers(1, 10**4), link_mbit=st.integers(0, 10**5)),
)
def test_the_same_question_gets_the_same_answer_within_bounds(boot: str, told: int, load: Load, limits: Http) -> None:
    wait = admit(boot, told, load, limits)
    assert wait == admit(boot, told, load, limits)
    if wait is not None:
        assert 1 <= wait.seconds <= 1.5 * max(WAIT_MAX, load.queued / 100) + 1 and wait.reason
