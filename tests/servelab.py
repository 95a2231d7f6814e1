"""A server's and a machine's side of a private wire, and a machine that boots over it packet by packet."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import re
import socket
import subprocess
import threading
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import httpx

from pxeserver.mac import mac_to_bytes
from pxeserver.serve.express import ExpressLoop
from pxeserver.wire import dhcp, dhcp6, tftp

T = TypeVar("T")

SERVER, SERVER_ALIAS, OTHER_SIDE = "10.77.0.1", "10.78.0.1", "10.79.0.1"
CLIENT, RELAY = "10.77.9.1", "10.78.0.9"
SERVER6, CLIENT6 = "fd77::1", "fd77::9"
CAPTURES = Path(__file__).parent / "captures"
_CLONE_NEWNET = 0x40000000


def _enter(netns: str) -> None:
    """Move this thread into a network namespace; threads that it starts are there too."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path(f"/run/netns/{netns}").open() as file:
        if libc.setns(file.fileno(), _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"setns {netns}")


def within(netns: str, work: Callable[[], T]) -> T:
    """Run `work` in a thread of its own inside the namespace."""
    result: list[T] = []
    failure: list[BaseException] = []

    def body() -> None:
        try:
            _enter(netns)
            result.append(work())
        except BaseException as error:  # handed to the caller
            failure.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join(60)
    if failure:
        raise failure[0]
    assert not thread.is_alive()
    return result[0]


class Loop:
    """An event loop in its own thread, in a namespace if named; `run` and `call` go into it and wait."""

    def __init__(self, netns: str = "") -> None:
        self.loop = ExpressLoop()
        self.thread = threading.Thread(target=self._run, args=(netns,), name="test-loop", daemon=True)
        self.thread.start()

    def _run(self, netns: str) -> None:
        if netns:
            _enter(netns)
        self.loop.run_forever()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(120)

    def call(self, function: Callable[[], T]) -> T:
        async def wrapped() -> T:
            return function()

        return self.run(wrapped())

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(30)
        self.loop.close()


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def hardware(netns: str) -> str:
    """The MAC of a namespace's eth0."""
    shown = subprocess.run(["ip", "-n", netns, "-j", "link", "show", "eth0"], check=True, capture_output=True)
    return str(json.loads(shown.stdout)[0]["address"])


class Wire:
    """Two namespaces joined by two cables. eth0 has an alias on the server's side; eth1 is another network."""

    def __init__(self) -> None:
        self.server, self.client = f"sv-{os.getpid()}-srv", f"sv-{os.getpid()}-cli"
        for name in (self.server, self.client):
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        for eth in ("eth0", "eth1"):
            self.plug(eth)
        for name, address in ((self.server, SERVER6), (self.client, CLIENT6)):
            ip("-n", name, "address", "add", f"{address}/64", "dev", "eth0", "nodad")

    def plug(self, eth: str) -> None:
        """A new cable, with its addresses."""
        ip("-n", self.server, "link", "add", eth, "type", "veth", "peer", "name", eth, "netns", self.client)
        for name, addresses in (
            (self.server, {"eth0": [f"{SERVER}/16", f"{SERVER_ALIAS}/24"], "eth1": [f"{OTHER_SIDE}/24"]}),
            (self.client, {"eth0": [f"{CLIENT}/16", f"{RELAY}/24"], "eth1": ["10.79.0.9/24"]}),
        ):
            for address in addresses[eth]:
                ip("-n", name, "address", "add", address, "dev", eth)
            # link-local addresses that are good from the first moment
            ip("netns", "exec", name, "sysctl", "-qw", f"net.ipv6.conf.{eth}.accept_dad=0")
            ip("-n", name, "link", "set", eth, "up")

    def close(self) -> None:
        for name in (self.server, self.client):
            ip("netns", "del", name)


def captured(name: str, mac: str, **changes: Any) -> dhcp.Packet:
    """A packet of real firmware as this machine would send it."""
    packet = dhcp.parse(bytes.fromhex((CAPTURES / f"{name}.hex").read_text().strip()))
    options = tuple((code, value) for code, value in packet.options if code != dhcp.OPT_CLIENT_ID)
    return replace(packet, chaddr=mac_to_bytes(mac), options=options, xid=os.urandom(4), **changes)


def captured6(name: str) -> dhcp6.Packet:
    """A DHCPv6 message of real firmware, in a new transaction."""
    packet = dhcp6.parse(bytes.fromhex((CAPTURES / "dhcp6" / f"{name}.hex").read_text().strip()))
    return replace(packet, xid=os.urandom(3))


def system_request(mac: str, address: str) -> dhcp.Packet:
    """What the DHCP client of a booted system broadcasts."""
    options = ((dhcp.OPT_MESSAGE_TYPE, bytes([dhcp.REQUEST])), (50, socket.inet_aton(address)), (60, b"udhcp 1.36"))
    return dhcp.Packet(dhcp.BOOTREQUEST, os.urandom(4), mac_to_bytes(mac), options)


class Machine:
    """The machine's side; every method runs in the client's namespace."""

    def __init__(self, wire: Wire, mac: str) -> None:
        self.wire, self.mac = wire, mac

    def ask(
        self,
        packet: dhcp.Packet | bytes,
        *,
        to: tuple[str, int] = ("255.255.255.255", 67),
        port: int = 68,
        device: str = "eth0",
        wait: float = 3.0,
    ) -> tuple[dhcp.Packet, tuple[str, int]] | None:
        """Send and take the answer to it, with its sender; None when none comes."""
        raw = packet if isinstance(packet, bytes) else packet.pack()

        def work() -> tuple[dhcp.Packet, tuple[str, int]] | None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
                sock.bind(("", port))
                sock.settimeout(wait)
                sock.sendto(raw, to)
                try:
                    while True:
                        answer, sender = sock.recvfrom(2048)
                        got = dhcp.parse(answer)
                        if got.op == dhcp.BOOTREPLY and got.xid == raw[4:8]:
                            return got, sender
                except TimeoutError:
                    return None

        return within(self.wire.client, work)

    def ask6(
        self, packet: dhcp6.Packet, *, to: str = "ff02::1:2", port: int = 547, own_port: int = 546, wait: float = 3.0
    ) -> tuple[dhcp6.Packet, tuple[str, int]] | None:
        """As `ask`, by DHCPv6."""

        def work() -> tuple[dhcp6.Packet, tuple[str, int]] | None:
            with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
                sock.bind(("::", own_port))
                sock.settimeout(wait)
                sock.sendto(packet.pack(), (to, port, 0, socket.if_nametoindex("eth0")))
                try:
                    while True:
                        answer, sender = sock.recvfrom(2048)
                        got = dhcp6.parse(answer)
                        if got.xid == packet.xid:
                            return got, sender[:2]
                except TimeoutError:
                    return None

        return within(self.wire.client, work)

    def say(self, reply: dhcp.Packet) -> None:
        """Broadcast what a DHCP server says."""

        def work() -> None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
                sock.bind(("", 67))
                sock.sendto(reply.pack(), ("255.255.255.255", 68))

        within(self.wire.client, work)

    def offer(self, name: str, **changes: Any) -> dhcp.Packet:
        """DISCOVER as captured; the offer."""
        got = self.ask(captured(name, self.mac, **changes))
        assert got is not None, "no offer"
        return got[0]

    def request_address(self, address: str = CLIENT) -> None:
        """The site's DHCP is asked for this address: everybody hears it."""
        packet = captured("qemu-rom-ipxe1-bios.request", self.mac)
        options = tuple((c, socket.inet_aton(address) if c == 50 else v) for c, v in packet.options)
        assert self.ask(replace(packet, options=options), wait=0.2) is None

    def tftp(self, name: str, server: str = SERVER) -> bytes | tftp.Error:
        """A file, block by block."""

        def work() -> bytes | tftp.Error:
            content, block = b"", 0
            with socket.socket(socket.AF_INET6 if ":" in server else socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.settimeout(5)
                sock.sendto(tftp.pack_request(name), (server, 69))
                while True:
                    raw, sender = sock.recvfrom(2048)
                    message = tftp.parse(raw)
                    if isinstance(message, tftp.Error):
                        return message
                    assert isinstance(message, tftp.Data)
                    if message.block == block + 1:
                        block += 1
                        content += message.payload
                    sock.sendto(tftp.pack_ack(block), sender)
                    if len(message.payload) < 512:
                        return content

        return within(self.wire.client, work)

    def http(self, method: str, url: str, **more: Any) -> httpx.Response:
        return within(self.wire.client, lambda: httpx.request(method, url, timeout=10, **more))

    def get(self, url: str) -> str:
        got = self.http("GET", url)
        assert got.status_code == 200, got.text
        return got.text

    def script(self, url: str, platform: str = "pcbios", memory: int = 1024) -> str:
        """Both steps: the script that asks for facts, then the machine's own."""
        first = self.get(url)
        chained = re.search(r"chain \S+ \S+ (\S+)\?mac=", first) or re.search(r"chain .*?(http\S+)\?mac=", first)
        assert chained is not None, first
        facts = f"?mac={self.mac}&ip={CLIENT}&platform={platform}&buildarch=x86_64&version=1.21.1&memsize={memory}"
        return self.get(chained[1] + facts)


def links(script: str) -> tuple[str, str, str]:
    """Kernel URL, initrd URL and command line of a boot script."""
    kernel = re.search(r"^kernel --name \S+ (\S+) (.*?) \|\|", script, re.M)
    initrd = re.search(r"^initrd --name \S+ (\S+) \|\|", script, re.M)
    assert kernel is not None and initrd is not None, script
    return kernel[1], initrd[1], kernel[2]
