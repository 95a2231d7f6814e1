"""A small network of namespaces for simulated machines: a switch, the site's DHCP server, a boot server, a client host.

All names begin with `si-`; every process is ended by its pid, every namespace removed.
"""

from __future__ import annotations

import http.server
import itertools
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from fleetlab import build
from servelab import Loop, _enter, ip, within
from simlab import Server, program

from pxeserver.fleet.fleet import Fleet, open_fleet
from pxeserver.serve.boot import BootServer, bind
from pxeserver.wire import dhcp
from pxeserver.wire.reader import WireError

LAN, SERVER, CLIENT = "10.77.0.1", "10.77.0.2", "10.77.0.3"
POOL = ("10.77.0.100", "10.77.0.199")
_NUMBERS = itertools.count()


class Net:
    """sw (a bridge), lan (dnsmasq: addresses and nothing else), srv, cli."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.prefix = folder, f"si-{os.getpid()}-{next(_NUMBERS)}-"
        self.processes: list[subprocess.Popen[bytes]] = []
        for name in ("sw", "lan", "srv", "cli"):
            ip("netns", "add", self.ns(name))
            ip("-n", self.ns(name), "link", "set", "lo", "up")
        ip("-n", self.ns("sw"), "link", "add", "br0", "type", "bridge", "forward_delay", "0", "mcast_snooping", "0")
        ip("-n", self.ns("sw"), "link", "set", "br0", "up")
        for name, address in (("lan", LAN), ("srv", SERVER), ("cli", CLIENT)):
            words = ["link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", self.ns(name)]
            ip("-n", self.ns("sw"), *words)
            ip("-n", self.ns("sw"), "link", "set", name, "master", "br0", "up")
            ip("-n", self.ns(name), "address", "add", f"{address}/24", "dev", "eth0")
            ip("-n", self.ns(name), "link", "set", "eth0", "up")
        self.leases = folder / "leases"
        self.dnsmasq(
            *("lan", "--dhcp-authoritative", "--no-ping", f"--dhcp-leasefile={self.leases}"),
            f"--dhcp-range={POOL[0]},{POOL[1]},255.255.255.0,1h",
        )

    def ns(self, name: str) -> str:
        return self.prefix + name

    def dnsmasq(self, where: str, *options: str) -> subprocess.Popen[bytes]:
        """Started and listening."""
        log = self.folder / f"dnsmasq-{where}-{len(self.processes)}.log"
        argv = ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--user=root", "--log-dhcp"]
        argv += ["--log-facility=-", f"--pid-file={log}.pid", *options]
        with log.open("wb") as out:
            done = subprocess.Popen(["ip", "netns", "exec", self.ns(where), *argv], stdout=out, stderr=out)
        self.processes.append(done)
        end = time.monotonic() + 20
        while b"DHCP" not in log.read_bytes():
            assert done.poll() is None and time.monotonic() < end, log.read_text()
            time.sleep(0.02)
        return done

    def stop(self, process: subprocess.Popen[bytes]) -> None:
        process.terminate()
        process.wait(20)
        self.processes.remove(process)

    def within(self, name: str, work: Callable[[], Any]) -> Any:
        return within(self.ns(name), work)

    def close(self) -> None:
        for process in list(self.processes):
            self.stop(process)
        for name in ("sw", "lan", "srv", "cli"):
            ip("netns", "del", self.ns(name))


class Boots:
    """Our own server, in the namespace `srv`, over a fleet that the test may change."""

    def __init__(self, net: Net, config: Any) -> None:
        self.config = config
        self.fleet: Fleet = open_fleet(config)
        self.loop = Loop(net.ns("srv"))
        self.server: BootServer = self.loop.run(self._start())

    async def _start(self) -> BootServer:
        server = BootServer(self.config, open_fleet(self.config), bind(self.config))
        await server.start()
        return server

    def close(self) -> None:
        self.loop.run(self.server.close())
        self.loop.stop()
        self.fleet.close()


class Behind:
    """Servers of `simlab` behind real sockets: UDP 67, 4011 and 69, TFTP from ports of its own."""

    def __init__(self, net: Net, *servers: Server) -> None:
        self.servers = servers
        self._stop = threading.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(net.ns("srv"),))
        self._thread.start()
        assert self._ready.wait(20)

    def _run(self, netns: str) -> None:
        _enter(netns)
        socks = {port: self._bound(port) for port in (67, 4011, 69)}
        self._ready.set()
        while not self._stop.is_set():
            for port in list(socks):
                try:
                    raw, peer = socks[port].recvfrom(4096)
                except TimeoutError:
                    continue
                for delay, answer, sender in self._ask(port, raw, peer):
                    time.sleep(delay)
                    out = socks.get(sender[1]) or socks.setdefault(sender[1], self._bound(sender[1]))
                    try:
                        out.sendto(answer, self._back(port, raw, peer))
                    except OSError:
                        pass
        for sock in socks.values():
            sock.close()

    @staticmethod
    def _bound(port: int) -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
        sock.bind(("", port))
        sock.settimeout(0.005)
        return sock

    def _ask(self, port: int, raw: bytes, peer: tuple[str, int]) -> list[tuple[float, bytes, tuple[str, int]]]:
        try:
            return [
                answer
                for server in self.servers
                for answer in (
                    server.dhcp(dhcp.parse(raw), 67) if port == 67 else server.udp(raw, (SERVER, port), peer)
                )
            ]
        except WireError:
            return []

    @staticmethod
    def _back(port: int, raw: bytes, peer: tuple[str, int]) -> tuple[str, int]:
        if port != 67:
            return peer
        relay = socket.inet_ntoa(raw[24:28])
        return ("255.255.255.255", 68) if relay == "0.0.0.0" else (relay, 67)

    def close(self) -> None:
        self._stop.set()
        self._thread.join(20)


class Web:
    """A plain HTTP server of a folder, in the namespace `srv`."""

    def __init__(self, net: Net, folder: Path, port: int = 80) -> None:
        class Quiet(http.server.SimpleHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

        handler = partial(Quiet, directory=str(folder))
        self.server = net.within("srv", lambda: http.server.ThreadingHTTPServer((SERVER, port), handler))
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self._thread.join(20)
        self.server.server_close()


class Host:
    """The boot server's host, with `pxeserver serve` running on it."""

    def __init__(self, net: Net, folder: Path, **sections: object) -> None:
        self.net, self.folder, self.file = net, folder, folder / "pxeserver.yaml"
        data = folder / "data"
        (data / "loaders").mkdir(parents=True)
        (data / "loaders/undionly.kpxe").write_bytes(b"\xea" * 70_001)
        (data / "loaders/snponly.efi").write_bytes(program(size=150_000))
        self.image = build(data, "web")
        plain = {
            "server": {"data": str(data), "interfaces": ["eth0"]},
            "admin": {"socket": str(folder / "api.sock"), "listen": "127.0.0.1:8099"},
        }
        self.file.write_text(yaml.safe_dump({**plain, **sections}))
        self.out = (folder / "serve.log").open("w+")
        self.process = subprocess.Popen(self.argv("serve"), stdout=self.out, stderr=subprocess.STDOUT)
        end = time.monotonic() + 180  # in an emulated machine too
        while "API on the Unix socket" not in (folder / "serve.log").read_text():
            assert self.process.poll() is None and time.monotonic() < end, (folder / "serve.log").read_text()
            time.sleep(0.05)

    def argv(self, *words: str, where: str = "srv") -> list[str]:
        command = [sys.executable, "-m", "pxeserver", "--config", str(self.file), *words]
        return ["ip", "netns", "exec", self.net.ns(where), *command]

    def run(self, *words: str, where: str = "srv") -> subprocess.CompletedProcess[str]:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("PXESERVER_")}
        return subprocess.run(
            self.argv(*words, where=where), capture_output=True, text=True, env=environ, timeout=100, check=False
        )

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(30)
        self.out.close()
