"""iPXE's language: words, variables, operators, jumps, and what a machine makes of a script."""

from __future__ import annotations

import hashlib

import pytest
from simlab import World

from pxeserver.sim import ipxe
from pxeserver.sim.effects import Fetched, Stopped
from pxeserver.sim.ipxe import End, State, expand, split

URL = "http://10.0.0.1/boot/script.ipxe"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", []),
        ("  echo  a   b ", ["echo", "a", "b"]),
        ("echo 'a b' \"c  d\"", ["echo", "a b", "c  d"]),
        ("echo a\\ b", ["echo", "a b"]),
        ("echo a #b c", ["echo", "a"]),
        ("echo a#b", ["echo", "a#b"]),
        ("isset '' || x", ["isset", "", "||", "x"]),
    ],
)
def test_words(line: str, words: list[str]) -> None:
    assert split(line) == words


def test_variables() -> None:
    values = {"mac": "52:54:00:00:00:01", "name": "a b&c", "which": "mac"}
    assert expand("${mac} ${mac:hexhyp} ${mac:hexraw}", values) == "52:54:00:00:00:01 52-54-00-00-00-01 525400000001"
    assert expand("?n=${name:uristring}&x=${no}", values) == "?n=a%20b%26c&x="
    assert expand("${${which}}", values) == "52:54:00:00:00:01"


def run(text: str, patience: float = 0.0, **web: bytes | Fetched) -> tuple[End, State, World]:
    state = State({"mac": "52:54:00:00:00:01"}, patience)
    world = World((), web={f"http://10.0.0.1/boot/{name.replace('_', '.')}": body for name, body in web.items()})
    end = world.play(ipxe.run(b"#!ipxe\n" + text.encode(), URL, state))
    return end, state, world


def test_kernel_initrd_boot() -> None:
    end, state, _ = run(
        "kernel --name kernel k quiet x=1 || goto f\ninitrd --name i i\nboot\n:f\nexit", k=b"K", i=b"II"
    )
    assert end.how == "boot" and state.kernel is not None
    assert (state.kernel.size, state.kernel.sha256) == (1, hashlib.sha256(b"K").hexdigest())
    assert [got.size for got in state.initrds] == [2]
    assert state.cmdline == "quiet x=1"


def test_operators_and_jumps() -> None:
    _, state, _ = run("isset ${mac} && echo one || echo two\nisset ${no} && echo three || echo four\nexit")
    assert state.echoed == ["one", "four"]
    _, state, _ = run("goto end\necho no\n:end\necho yes\nexit")
    assert state.echoed == ["yes"]
    _, state, _ = run("set a b c\niseq ${a} 'b c' ||\niseq x y ||\necho ${a}\nexit")
    assert state.echoed == ["b c"]


def test_a_failed_command_ends_the_script_unless_it_is_caught() -> None:
    with pytest.raises(Stopped, match='"kernel k" failed: .*HTTP 404'):
        run("kernel k\nboot")
    end, state, _ = run("kernel k || exit 1")
    assert end.how == "local" and "HTTP 404" in state.trouble
    with pytest.raises(Stopped, match="no such command"):
        run("frobnicate")
    with pytest.raises(Stopped, match="no label nowhere"):
        run("goto nowhere")
    with pytest.raises(Stopped, match="no image to boot"):
        run("boot")


def test_chains_are_followed_with_what_only_ipxe_knows() -> None:
    end, _, world = run("chain --replace --autofree next.ipxe?mac=${mac} || goto x", next_ipxe=b"#!ipxe\nexit\n")
    assert end.how == "local"
    assert world.fetched[0].url == "http://10.0.0.1/boot/next.ipxe?mac=52:54:00:00:00:01"
    end, _, _ = run("chain other.efi", other_efi=b"MZ...")
    assert (end.how, end.url, end.body) == ("image", "http://10.0.0.1/boot/other.efi", b"MZ...")


def test_a_script_that_says_wait() -> None:
    text = "echo waits for an image\nsleep 5\nchain --replace script.ipxe"
    end, _, world = run(text, 0, script_ipxe=b"#!ipxe\nexit")
    assert (end.how, end.text) == ("waits", "waits for an image")
    end, _, world = run(text, 5, script_ipxe=b"#!ipxe\nexit")
    assert end.how == "local" and world.now == 5
    end, _, _ = run("kernel k || goto f\n:f\necho could not load\nsleep 1")
    assert end.text == "could not load / http://10.0.0.1/boot/k: HTTP 404"


def test_a_script_without_end_is_stopped() -> None:
    with pytest.raises(Stopped, match="10000 lines"):
        run(":a\ngoto a")


def test_an_address_that_names_a_digest_must_keep_its_word() -> None:
    good = hashlib.sha256(b"K").hexdigest()
    world = World((), web={f"http://10.0.0.1/b/{good}/kernel": b"K"})
    state = State({})
    world.play(ipxe.run(f"#!ipxe\nkernel /b/{good}/kernel\nboot".encode(), URL, state))
    assert state.kernel is not None and state.kernel.digest
    world = World((), web={f"http://10.0.0.1/b/{good}/kernel": b"L"})
    with pytest.raises(Stopped, match="have the digest"):
        world.play(ipxe.run(f"#!ipxe\nkernel /b/{good}/kernel || goto f\n:f\nexit".encode(), URL, State({})))


def test_what_else_ends_a_script() -> None:
    assert run("sanboot --no-describe --drive 0x80 || exit 1")[0].how == "local"
    assert run("echo a")[0].how == "exit"
    assert run("shell")[0].how == "exit"
    _, state, _ = run("kernel k\nimgfree\nexit", k=b"K")
    assert state.kernel is None
