"""Facts that iPXE tells: read from real queries, nothing trusted."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pxeserver.boot import facts
from pxeserver.resources import shipped

# as iPXE 1.0 of Debian 12 sent it, BIOS, 512 MiB
REAL = (
    "mac=52%3A54%3A00%3A77%3A00%3A01&mac=52%3A54%3A00%3A77%3A00%3A01&mac=&mac=&mac=&mac=&mac=&mac=&mac=&ip=10.77.0.202"
    "&uuid=4c4c4544-0077-1000-8000-525400770001&serial=SN-01&manufacturer=LabCo&product=Netboot%201&platform=pcbios"
    "&buildarch=i386&version=1.0.0+git-20190125.36a4c85-5.1&memsize=&range0=00000000ffff0700&range1="
)


def test_a_real_query() -> None:
    found = facts.parse(REAL)
    assert found is not None
    assert (found.macs, found.platform) == (("52:54:00:77:00:01",), "pcbios")
    assert found.data == {
        "serial": "SN-01",
        "manufacturer": "LabCo",
        "product": "Netboot 1",
        "uuid": "4c4c4544-0077-1000-8000-525400770001",
        "ip": "10.77.0.202",
        "firmware": "bios",
        "ipxe": "1.0.0+git-20190125.36a4c85-5.1",
        "memory": "512",
    }


def kib_range(begin: int, size: int) -> str:
    """A memory range as SMBIOS has it: the first and the last KiB, little-endian, in hex."""
    return (begin.to_bytes(4, "little") + (begin + size - 1).to_bytes(4, "little")).hex()


GIB = 1024 * 1024  # in KiB


@pytest.mark.parametrize(
    ("query", "memory"),
    [
        ("memsize=2048&range0=00000000ffff0700", "2048"),
        (f"range0={kib_range(0, 3 * GIB)}&range1={kib_range(4 * GIB, 2 * GIB)}", "5120"),  # both sides of the hole
        ("range0=00000000ffffffff", None),  # told elsewhere
        ("range0=zz", None),
        ("range0=0000080000000000", None),  # ends before it begins
        ("memsize=99999999999", None),
        ("memsize=-1", None),
    ],
)
def test_memory(query: str, memory: str | None) -> None:
    found = facts.parse("platform=efi&" + query)
    assert found is not None and found.data.get("memory") == memory


def test_several_cards_are_told_once_each_the_booting_one_first() -> None:
    found = facts.parse("platform=efi&mac=52:54:00:00:00:02&mac=52:54:00:00:00:01&mac=52-54-00-00-00-02&mac=x")
    assert found is not None and found.macs == ("52:54:00:00:00:02", "52:54:00:00:00:01")
    many = "&".join(f"mac=52:54:00:00:00:{n:02x}" for n in range(30))
    found = facts.parse("platform=efi&" + many)
    assert found is not None and len(found.macs) == 16


@pytest.mark.parametrize(
    ("query", "arch"),
    [("buildarch=x86_64", "amd64"), ("buildarch=arm64", "arm64"), ("buildarch=i386", None), ("buildarch=vax", None)],
)
def test_the_loaders_processor_counts_where_it_says_something(query: str, arch: str | None) -> None:
    found = facts.parse("platform=efi&" + query)
    assert found is not None and found.data.get("arch") == arch


@pytest.mark.parametrize(
    "query", ["", "mac=52:54:00:77:00:01", "x" * 5000, "&".join("a=1" for _ in range(50)), "a;b=%"]
)
def test_a_query_without_facts_has_none(query: str) -> None:
    assert facts.parse(query) is None


def test_odd_values_are_left_out_and_long_ones_cut() -> None:
    found = facts.parse("platform=xbox&uuid=none&ip=here&serial=" + "s" * 300 + "&product=a%0Ab%00")
    assert found is not None
    assert found.platform == "" and found.data == {"serial": "s" * 100, "product": "a b"}


def test_the_template_asks_for_all_that_is_read() -> None:
    asked = set(re.findall(r"[?&](\w+)=", (shipped("templates") / "ipxe" / "facts.j2").read_text()))
    assert asked == {
        *("mac", "ip", "uuid", "serial", "manufacturer", "product"),
        *("platform", "buildarch", "version", "memsize", "range0", "range1"),
    }


@given(st.text(max_size=200) | st.text(max_size=100).map(lambda text: "platform=efi&serial=" + text))
def test_no_query_makes_it_fail(query: str) -> None:
    found = facts.parse(query)
    if found is not None:
        assert all(len(value) <= 100 and value.isprintable() for value in found.data.values())


@given(st.text(alphabet="ab=&%+2Fg\xff ", max_size=40))
def test_pairs_are_those_of_the_standard_library(query: str) -> None:
    assert list(facts.pairs(query)) == parse_qsl(query.replace("+", "%2B"), keep_blank_values=True)
