"""The fuzz targets hold for good inputs and for changed ones, and bugs that are planted do not pass them."""

from __future__ import annotations

import importlib.util
import inspect
import random
import sys
import textwrap
from collections.abc import Callable, Generator
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pxeserver.boot import answer as answers
from pxeserver.boot import token, zone
from pxeserver.serve import httpwire, loaderfiles, routes
from pxeserver.wire import dhcp, dhcp6, dns, ip, pxe, tftp

HERE = Path(__file__).parent


def loaded(name: str) -> ModuleType:
    """A module of this folder, which is run as a program too and so is no package."""
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


harness, mutate = loaded("harness"), loaded("mutate")
TARGETS: dict[str, Callable[[bytes], None]] = dict(harness.TARGETS)
CASES = [(target, seed) for target in TARGETS for seed in harness.seeds(target)]


@pytest.mark.parametrize(("target", "seed"), CASES, ids=[f"{t}-{n}" for n, (t, _) in enumerate(CASES)])
def test_good_inputs_pass_and_what_is_left_of_them_when_cut(target: str, seed: bytes) -> None:
    for end in range(len(seed) + 1):
        TARGETS[target](seed[:end])


@given(st.data())
@pytest.mark.parametrize("target", TARGETS)
def test_any_bytes_pass(target: str, data: st.DataObject) -> None:
    before, after = data.draw(st.sampled_from(harness.seeds(target))), data.draw(st.binary(max_size=300))
    TARGETS[target](before[: data.draw(st.integers(0, len(before)))] + after)


# --- planted bugs: each is one slip of the pen ---

INPUTS = 30_000  # at most, until a planted bug shows

# target that must notice; module, function; what it says, and what is put in its place
BUGS: list[tuple[str, str, Any, str, str, str]] = [
    ("an option reads a byte too far", "dhcp", dhcp, "_scan", "if stop > end:", "if stop > end + 1:"),
    ("the last option is lost", "dhcp", dhcp, "_scan", "if stop > end:", "if stop >= end:"),
    ("a code without a length", "dhcp", dhcp, "_scan", "position + 1 >= end", "position >= end"),
    ("padding is skipped by two", "dhcp", dhcp, "_scan", "position += 1", "position += 2"),
    ("parts are not joined", "dhcp", dhcp, "_scan", "into[code] + value if code in into else value", "value"),
    ("a short header passes", "dhcp", dhcp, "parse", "len(raw) < _HEADER_SIZE", "len(raw) < _HEADER_SIZE - 1"),
    ("a hardware address of 17 bytes", "dhcp", dhcp, "parse", "hlen > 16", "hlen > 17"),
    ("256 bytes are not split", "dhcp", dhcp, "pack_options", "len(value) < 256", "len(value) <= 256"),
    ("pieces lose a byte", "dhcp", dhcp, "pack_options", "start : start + 255", "start : start + 254"),
    ("the last architecture is lost", "dhcp", pxe, "archs", "len(raw) - 1", "len(raw) - 2"),
    ("option 82 is lost", "dhcp", answers, "answer", "if relay is not None:", "if False:"),
    ("relayed offers go to everybody", "dhcp", answers, "_destination", "packet.giaddr != NOWHERE and offer", "False"),
    ("4011 is answered to port 68", "dhcp", answers, "_destination", "arrival.peer_port", "CLIENT_PORT"),
    (
        "a relay agent's addresses swapped",
        "dhcp6",
        dhcp6,
        "parse",
        "address(link), address(peer)",
        "address(peer), address(link)",
    ),
    ("an interface id is lost", "dhcp6", dhcp6, "Packet.pack", "option[0] == OPT_INTERFACE_ID", "option[0] == 0"),
    ("agents without end", "dhcp6", dhcp6, "parse", "len(relays) == RELAYS_MAX", "len(relays) > RELAYS_MAX"),
    (
        "an option's length by half",
        "dhcp6",
        dhcp6,
        "options_of",
        "reader.take(reader.u16())",
        "reader.take(reader.u16() & 255)",
    ),
    ("a DUID of any length", "dhcp6", dhcp6, "mac_of_duid", "len(duid) != start + 6 or ", ""),
    ("block numbers are cut", "tftp", tftp, "pack_data", "0xFFFF", "0x7FFF"),
    ("a name climbs out", "tftp", tftp, "safe_path", 'or ".." in parts', ""),
    ("a control character passes", "tftp", tftp, "safe_path", "ord(c) < 32", "ord(c) < 31"),
    ("blocks larger than allowed", "tftp", tftp, "negotiate", "min(value, blksize_max)", "value"),
    ("a window larger than asked", "tftp", tftp, "negotiate", "min(value, windowsize_max)", "windowsize_max"),
    ("an option without a value", "tftp", tftp, "_options", "if not name or not reader.left:", "if not name:"),
    ("a range ends a byte late", "http", httpwire, "parse_range", "end - start + 1", "end - start + 2"),
    ("a range beyond the file", "http", httpwire, "parse_range", "min(int(last), size - 1)", "int(last)"),
    ("a NUL in a path", "http", httpwire, "_split_target", r'if "\0" in path:', "if False:"),
    ("doubled slashes", "http", httpwire, "_split_target", 're.sub("/{2,}", "/", path)', "path"),
    ("a negative length", "http", httpwire, "_body_length", "text.isascii() and text.isdigit()", "text[-1:].isdigit()"),
    ("a link out of the folder", "routes", routes, "find_loader", "real.is_relative_to(folder.resolve()) and", ""),
    ("any signature will do", "routes", token, "open", "if not hmac.compare_digest", "if None is hmac.compare_digest"),
    (
        "a name of no file ends the request",
        "tftpd",
        loaderfiles,
        "find_loader",
        "except ValueError:",
        "except EOFError:",
    ),
    ("a name climbs out of the server", "tftpd", tftp, "safe_path", 'or ".." in parts', ""),
    ("a datagram beyond its packet", "ip", ip, "unpack", "start + length > len(raw)", "False"),
    ("an IP header of 16 bytes", "ip", ip, "unpack", "start < _IP.size or ", ""),
    ("a pointer in a question", "dns", dns, "_labels", "size > LABEL_MAX or ", ""),
    ("a size beyond any path", "dns", dns, "parse", ", EDNS_MAX)", ", 65535)"),
    ("an answer is answered", "dns", dns, "parse", "flags & QR", "flags & TC"),
    ("a datagram that is too long", "dns", dns, "reply", "+ len(opt) > limit", "> limit"),
    ("the case is lost", "dns", dns, "reply", "query.question + tail", "query.question.lower() + tail"),
    ("NXDOMAIN for everybody's names", "dns", zone, "_reverse", "return None", "return _Node(labels, exists=False)"),
    ("a checksum that does not fold", "ip", ip, "checksum", "while total >> 16:", "if total >> 17:"),
]


_CACHED = type(lru_cache(len))


@pytest.fixture
def nothing_is_remembered() -> Generator[None, None, None]:
    """What was read with a planted bug must not be known without it, nor the other way round."""

    def forget() -> None:
        for name in [name for name in sys.modules if name.startswith("pxeserver.")]:
            for value in vars(sys.modules[name]).values():
                if isinstance(value, _CACHED):
                    value.cache_clear()

    forget()
    yield
    forget()


@pytest.mark.usefixtures("nothing_is_remembered")
@pytest.mark.parametrize(
    ("target", "module", "name", "right", "wrong"), [bug[1:] for bug in BUGS], ids=[bug[0] for bug in BUGS]
)
def test_a_planted_bug_is_found(
    monkeypatch: pytest.MonkeyPatch, target: str, module: Any, name: str, right: str, wrong: str
) -> None:
    owner: Any = module
    *outer, last = name.split(".")
    for part in outer:
        owner = getattr(owner, part)
    source = textwrap.dedent(inspect.getsource(getattr(owner, last)))
    assert right in source, "the code has changed: plant another bug"
    made: dict[str, Any] = {}
    exec(compile(source.replace(right, wrong), f"planted in {name}", "exec"), vars(module), made)
    monkeypatch.setattr(owner, last, made[last])
    with pytest.raises(Exception):  # noqa: B017 - whatever the slip leads to
        for data in mutate.inputs(harness.seeds(target), random.Random(1), INPUTS):
            TARGETS[target](data)


@pytest.mark.usefixtures("nothing_is_remembered")
@pytest.mark.parametrize("target", TARGETS)
def test_without_planted_bugs_inputs_pass(target: str) -> None:
    count = INPUTS // (25 if target == "tftpd" else 5)  # that one goes through sockets
    for data in mutate.inputs(harness.seeds(target), random.Random(1), count):
        TARGETS[target](data)


def test_the_tests_of_wire_reach_nearly_all_of_it() -> None:
    measured = loaded("coverage_of_wire")
    assert measured.measure() >= measured.BOUND
