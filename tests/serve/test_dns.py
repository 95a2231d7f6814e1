"""DNS on a real wire: asked by dig and host, forwarding to a real dnsmasq, through changes and restarts."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
from dnslib import RR, DNSRecord
from servelab import CLIENT, OTHER_SIDE, SERVER, SERVER_ALIAS, Loop, Machine, Wire, ip, system_request, within

from pxeserver.checked import replace
from pxeserver.config import Config, Dns, Server
from pxeserver.errors import Refused
from pxeserver.fleet.fleet import open_fleet
from pxeserver.fleet.values import MachineEdit
from pxeserver.local.doctor import Status, check_dns
from pxeserver.local.interfaces import read_interfaces
from pxeserver.model import Event
from pxeserver.serve.boot import BootServer, bind

pytestmark = pytest.mark.server
MAC, OTHER = "52:54:00:00:0d:01", "52:54:00:00:0d:02"
UPSTREAM = "10.77.9.1"


class Site:
    """A boot server with DNS in the server's namespace, and questions from the client's."""

    def __init__(self, wire: Wire, data: Path, **settings: Any) -> None:
        self.wire, self.data = wire, data
        interfaces = settings.pop("interfaces", ("eth0",))
        self.config = Config(
            server=Server(data=str(data), interfaces=interfaces), dns=Dns(enabled=True, domain="rack.test", **settings)
        )
        self.fleet = open_fleet(self.config)
        self.loop = Loop(wire.server)
        try:
            self.server = self.loop.run(self._start())
        except BaseException:
            self.loop.stop()
            raise

    async def _start(self) -> BootServer:
        server = BootServer(self.config, open_fleet(self.config), bind(self.config))
        self.lines = await server.start()
        return server

    def dig(self, *words: str, server: str = SERVER) -> str:
        argv = ["ip", "netns", "exec", self.wire.client, "dig", "+tries=1", "+time=3", f"@{server}", *words]
        return subprocess.run(argv, capture_output=True, text=True, check=False).stdout

    def short(self, *words: str, server: str = SERVER) -> list[str]:
        return sorted(self.dig("+short", *words, server=server).split("\n")[:-1])

    def ask(self, raw: bytes, server: str = SERVER) -> bytes | None:
        def work() -> bytes | None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.settimeout(1)
                sock.connect((server, 53))
                sock.send(raw)
                try:
                    return sock.recv(65535)
                except TimeoutError:
                    return None

        return within(self.wire.client, work)

    def count(self, name: str) -> int:
        return self.loop.call(lambda: self.server.dns.counts[name])

    def until(self, true: Callable[[], bool]) -> None:
        end = time.monotonic() + 10
        while not true():
            assert time.monotonic() < end
            time.sleep(0.05)

    def add(self, name: str, mac: str, **variables: str) -> None:
        self.fleet.add_machine(MachineEdit(name=name, macs=(mac,), vars=variables))
        self.until(lambda: self.short(f"{name}.rack.test", "soa") == [] and "NOERROR" in self.dig(f"{name}.rack.test"))

    def close(self) -> None:
        self.loop.run(self.server.close())
        self.loop.stop()
        self.fleet.close()


@pytest.fixture
def start(wire: Wire, tmp_path: Path) -> Generator[Callable[..., Site], None, None]:
    running: list[Site] = []

    def started(**settings: Any) -> Site:
        for site in running:
            site.close()
        running[:] = [Site(wire, tmp_path, **settings)]
        return running[0]

    yield started
    for site in running:
        site.close()


@pytest.fixture
def site(start: Callable[..., Site]) -> Site:
    return start()


def test_a_machine_is_found_by_the_address_that_its_system_asks_dhcp_for(
    site: Site, start: Callable[..., Site]
) -> None:
    site.add("Web1", MAC)
    assert site.short("web1.rack.test") == []  # there, without an address
    Machine(site.wire, MAC).ask(system_request(MAC, CLIENT), wait=0.3)
    site.until(lambda: site.short("web1.rack.test") == [CLIENT])
    assert site.short("web1") == [CLIENT]
    assert site.short("52-54-00-00-0d-01.rack.test") == [CLIENT]
    assert site.short("-x", CLIENT) == ["web1.rack.test."]
    Machine(site.wire, MAC).ask(system_request(MAC, "10.77.9.2"), wait=0.3)
    site.until(lambda: site.short("web1.rack.test") == ["10.77.9.2"])
    assert "REFUSED" in site.dig("-x", CLIENT)
    site.until(lambda: any(row[1] == "10.77.9.2" for row in site.fleet.addresses()))
    again = start()
    assert again.short("web1.rack.test") == ["10.77.9.2"]
    again.fleet.set_machine("Web1", MachineEdit(name="db1"))
    again.until(lambda: again.short("db1.rack.test") == ["10.77.9.2"])
    assert "NXDOMAIN" in again.dig("web1.rack.test")
    assert again.short("-x", "10.77.9.2") == ["db1.rack.test."]


def test_an_address_follows_what_a_boot_tells(site: Site) -> None:
    site.add("web1", MAC)
    site.add("web2", OTHER)
    site.loop.call(lambda: site.server._emit(Event(time.time(), "network", MAC, "ab" * 8, data={"ip": "10.77.9.3"})))
    assert site.short("web1.rack.test") == ["10.77.9.3"]
    site.loop.call(lambda: site.server._emit(Event(time.time(), "network", OTHER, "cd" * 8, data={"ip": "10.77.9.3"})))
    assert site.short("web1.rack.test") == []  # the address is another machine's now
    assert site.short("web2.rack.test") == ["10.77.9.3"]
    assert site.short("-x", "10.77.9.3") == ["web2.rack.test."]


def test_a_stranger_on_the_wire_gets_no_name(site: Site) -> None:
    Machine(site.wire, MAC).ask(system_request(MAC, CLIENT), wait=0.3)
    time.sleep(0.3)
    assert "REFUSED" in site.dig("-x", CLIENT)
    assert site.fleet.machines() == ()


def test_names_that_are_there_and_names_that_are_not(site: Site) -> None:
    site.add("n3.row1", MAC, address="10.77.3.1, fd00:77::31", srv="_http._tcp 80, _etcd-server._tcp 2380, junk")
    assert site.short("n3.row1.rack.test") == ["10.77.3.1"]
    assert site.short("n3.row1.rack.test", "aaaa") == ["fd00:77::31"]
    assert site.short("-x", "fd00:77::31") == ["n3.row1.rack.test."]
    assert site.short("_http._tcp.n3.row1.rack.test", "srv") == ["0 0 80 n3.row1.rack.test."]
    assert site.short("_etcd-server._tcp.rack.test", "srv") == ["0 0 2380 n3.row1.rack.test."]
    assert "10.77.3.1" in site.dig("_http._tcp.rack.test", "srv").partition("ADDITIONAL SECTION")[2]
    assert site.short("rack.test", "ns") == ["pxeserver.rack.test."]
    for words, status, answers in (
        (("nobody.rack.test",), "NXDOMAIN", 0),
        (("row1.rack.test",), "NOERROR", 0),
        (("_tcp.rack.test", "srv"), "NOERROR", 0),
        (("_ldap._tcp.rack.test", "srv"), "NXDOMAIN", 0),
        (("n3.row1.rack.test", "mx"), "NOERROR", 0),
        (("rack.test",), "NOERROR", 0),
        (("n3.row1.rack.test", "any"), "NOERROR", 2),
    ):
        text = site.dig("+notcp", *words)
        assert f"status: {status}" in text and f"ANSWER: {answers}," in text, text
        assert ("\tSOA\t" in text) is (answers == 0), text
        assert " aa " in text.replace(";", " ;")
    for words in (("example.com",), ("rack.test", "axfr"), ("rack.test", "txt", "-c", "chaos"), ("-x", "10.1.1.1")):
        text = site.dig(*words)
        assert "REFUSED" in text or "Transfer failed" in text, text


def test_our_own_name_is_the_address_on_the_asker_s_wire(start: Callable[..., Site]) -> None:
    site = start(interfaces=("eth0", "eth1"))
    for server in (SERVER, SERVER_ALIAS, OTHER_SIDE):
        assert site.short("pxeserver.rack.test", server=server) == [server]
        assert site.short("pxeserver.rack.test", "+tcp", server=server) == [server]
        assert site.short("-x", server, server=SERVER) == ["pxeserver.rack.test."]
    assert site.short("_pxeserver._tcp.rack.test", "srv") == ["0 0 8080 pxeserver.rack.test."]
    assert "REFUSED" in site.dig("metaldata")  # its service does not run here
    ip("-n", site.wire.server, "address", "add", "10.77.0.77/16", "dev", "eth0")
    try:
        site.until(lambda: site.short("pxeserver.rack.test", server="10.77.0.77") == ["10.77.0.77"])
    finally:
        ip("-n", site.wire.server, "address", "del", "10.77.0.77/16", "dev", "eth0")


def test_an_interface_that_is_not_named_hears_nothing(start: Callable[..., Site]) -> None:
    site = start(interfaces=("eth0",))
    assert site.dig("pxeserver.rack.test", server=OTHER_SIDE).count("status:") == 0


def test_prepared_answers_keep_case_flags_and_counts(site: Site) -> None:
    site.add("web1", MAC, address="10.77.3.1")
    before = site.count("prepared")
    for _ in range(3):
        question = DNSRecord.question("wEb1.RaCk.TesT")
        got = DNSRecord.parse(site.ask(question.pack()) or b"")
        assert str(got.q.qname) == str(got.rr[0].rname) == "wEb1.RaCk.TesT."
        assert (str(got.rr[0].rdata), got.rr[0].ttl) == ("10.77.3.1", 60)
        assert (got.header.id, got.header.rd, got.header.ra, got.header.aa) == (question.header.id, 1, 0, 1)
    assert site.count("prepared") >= before + 2
    plain = DNSRecord.question("web1.rack.test").pack()[2:]
    kinds = [plain, b"\0\0" + plain[2:], b"\1\x10" + plain[2:], plain.upper(), plain + bytes(2)]
    kinds.append(plain[:8] + b"\0\1" + plain[10:] + b"\0\0\x29\x04\xd0\0\0\0\0\0\0")
    first = [site.ask(b"\1\1" + kind) or b"" for kind in kinds]
    before = site.count("prepared")
    assert [site.ask(b"\2\2" + kind) for kind in kinds] == [b"\2\2" + answer[2:] for answer in first]
    assert site.count("prepared") == before + len(kinds)
    assert [raw[2:4].hex() for raw in first] == ["8500", "8400", "8510", "8500", "8500", "8500"]
    assert [raw[11] for raw in first] == [0, 0, 0, 0, 0, 1] and b"WEB1" in first[3]
    cookie = plain[:8] + b"\0\1" + plain[10:] + b"\0\0\x29\x04\xd0\0\0\0\0\0\x0c\0\x0a\0\x08cookies!"
    for ident in (b"\3\3", b"\4\4"):
        assert DNSRecord.parse(site.ask(ident + cookie) or b"").rr
    assert site.count("prepared") == before + len(kinds), "each query with a cookie is another"
    site.fleet.set_machine("web1", MachineEdit(vars={"address": "10.77.3.2"}))
    site.until(lambda: site.short("+noedns", "web1.rack.test") == ["10.77.3.2"])


def test_what_does_not_fit_comes_by_tcp(site: Site) -> None:
    many = ",".join(f"10.77.4.{n}" for n in range(1, 121))
    site.add("many", MAC, address=many)
    cut = site.dig("+ignore", "+noedns", "many.rack.test")
    assert " tc" in cut and "ANSWER: 0," in cut
    assert "Truncated, retrying in TCP" in (text := site.dig("many.rack.test")) and "ANSWER: 120," in text
    assert len(site.short("+tcp", "many.rack.test")) == 120
    site.add("few", OTHER, address=",".join(many.split(",")[:60]))
    assert "ANSWER: 60," in site.dig("+ignore", "few.rack.test")  # EDNS says that more than 512 bytes are welcome
    assert " tc" in site.dig("+ignore", "+noedns", "few.rack.test")


def test_odd_queries(site: Site) -> None:
    assert "BADVERS" in site.dig("+edns=1", "+noednsnegotiation", "rack.test")
    assert "NOTIMP" in site.dig("+opcode=notify", "rack.test")
    raw = bytes(DNSRecord.question("rack.test").pack())
    assert site.ask(raw[:2] + b"\x80" + raw[3:]) is None  # an answer
    assert (site.ask(raw[:-3]) or b"")[3] == 1  # FORMERR
    assert site.ask(b"") is None and site.ask(b"x" * 11) is None
    for length in (12, 40, 511, 1400):
        site.ask(os.urandom(2) + b"\x80" + os.urandom(length))
    assert site.count("malformed") >= 4 and site.count("failed") == 0
    assert site.short("rack.test", "ns")


def test_host_reads_all_of_it(site: Site) -> None:
    site.add("web1", MAC, address="10.77.3.1")
    argv = ["ip", "netns", "exec", site.wire.client, "host", "-W", "3", "web1.rack.test", SERVER]
    assert "web1.rack.test has address 10.77.3.1" in subprocess.run(argv, capture_output=True, text=True).stdout


@pytest.fixture
def dnsmasq(wire: Wire, tmp_path: Path) -> Generator[subprocess.Popen[bytes], None, None]:
    """An upstream that knows a name, on the client's side."""
    argv = ["ip", "netns", "exec", wire.client, "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null"]
    argv += ["--user=root", f"--pid-file={tmp_path}/pid", "--no-resolv", "--no-hosts", "--log-facility=-"]
    argv += [f"--listen-address={UPSTREAM}", "--bind-interfaces", "--address=/far.test/192.0.2.7"]
    argv += [f"--txt-record=long.test,{'x' * 200},{'y' * 200},{'z' * 200}"]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def bound() -> bool:
        try:
            within(wire.client, lambda: socket.create_connection((UPSTREAM, 53), 1).close())
        except OSError:
            return False
        return True

    end = time.monotonic() + 10
    while not bound():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.05)
    yield process
    process.terminate()
    process.wait(10)


def test_other_names_are_forwarded_if_told_so(start: Callable[..., Site], dnsmasq: subprocess.Popen[bytes]) -> None:
    site = start(upstreams=(UPSTREAM,))
    site.add("web1", MAC, address="10.77.3.1")
    assert site.short("web1.rack.test") == ["10.77.3.1"]
    assert " ra" in site.dig("+noedns", "web1.rack.test") and " ra" in site.dig("+noedns", "web1.rack.test")
    assert site.short("www.far.test") == ["192.0.2.7"] == site.short("+tcp", "www.far.test")
    assert site.count("forwarded") == 2
    assert "REFUSED" in site.dig("+norecurse", "www.far.test")
    assert len(site.dig("+bufsize=512", "+short", "txt", "long.test")) > 600  # TC, then TCP, all the way
    dnsmasq.terminate()
    dnsmasq.wait(10)
    assert "SERVFAIL" in site.dig("+time=12", "www.far.test")


def test_forged_answers_are_not_believed(start: Callable[..., Site]) -> None:
    site = start(upstreams=(f"{UPSTREAM}:5399",))
    done = threading.Event()

    def forge() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind((UPSTREAM, 5399))
            done.set()
            raw, peer = sock.recvfrom(4096)
            good = DNSRecord.parse(raw).reply()
            good.add_answer(*RR.fromZone("www.far.test. 60 A 192.0.2.1"))
            real = good.pack()
            bad = real[:-4] + bytes((192, 0, 2, 66))
            sock.sendto(bytes((bad[0] ^ 1,)) + bad[1:], peer)  # another number
            sock.sendto(bad.replace(b"\3www\3far", b"\3ww2\3far"), peer)  # another question
            sock.sendto(bad[:2] + bytes((bad[2] & 0x7F,)) + bad[3:], peer)  # a query
            sock.sendto(b"x", peer)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
                other.sendto(bad, peer)  # another port
            sock.sendto(real, peer)

    thread = threading.Thread(target=lambda: within(site.wire.client, forge))
    thread.start()
    assert done.wait(10)
    assert site.short("www.far.test") == ["192.0.2.1"]
    thread.join(10)


def test_no_more_than_a_number_of_questions_wait_for_an_upstream(start: Callable[..., Site]) -> None:
    site = start(upstreams=("10.77.200.200",))  # nobody there

    def flood() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.connect((SERVER, 53))
            for n in range(600):
                sock.send(DNSRecord.question(f"n{n}.far.test").pack())

    within(site.wire.client, flood)
    site.until(lambda: site.count("forward-full") >= 300)
    assert len(site.server.dns.forwarder.running) <= 256
    assert site.short("pxeserver.rack.test") == [SERVER]


def test_tcp_streams_are_bounded_and_pipelined(site: Site) -> None:
    def work() -> list[bytes]:
        raw = DNSRecord.question("pxeserver.rack.test").pack()
        framed = len(raw).to_bytes(2, "big") + raw
        with socket.create_connection((SERVER, 53), 5) as sock:
            sock.sendall(framed[:5])
            time.sleep(0.1)
            sock.sendall(framed[5:] + framed * 2)
            file = sock.makefile("rb")
            return [file.read(int.from_bytes(file.read(2), "big")) for _ in range(3)]

    answers = within(site.wire.client, work)
    assert all(str(DNSRecord.parse(raw).rr[0].rdata) == SERVER for raw in answers)


def test_a_taken_port_is_refused_with_the_holder_s_name(start: Callable[..., Site], wire: Wire) -> None:
    held = within(wire.server, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    held.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
    held.bind(("", 53))
    try:
        with pytest.raises(Refused) as caught:
            start()
    finally:
        held.close()
    assert caught.value.slug == "port-taken" and "53" in str(caught.value) and "dns" in str(caught.value)


def test_doctor_asks_for_our_name(site: Site) -> None:
    interfaces = within(site.wire.server, read_interfaces)
    eth0 = [i for i in interfaces.values() if i.name == "eth0"]
    found = within(site.wire.server, lambda: list(check_dns(site.config, eth0)))
    assert [(c.status, c.text) for c in found] == [(Status.OK, f"pxeserver.rack.test from {SERVER} is {SERVER}")]
    other = replace(site.config, dns=Dns(enabled=True, domain="rack.test", name="another"))
    (bad,) = within(site.wire.server, lambda: list(check_dns(other, eth0)))
    assert bad.status is Status.FAIL and "nothing" in bad.text
    assert list(check_dns(Config(), eth0)) == []


def test_off_by_default() -> None:
    assert not Config().dns.enabled and not Config().metadata.enabled
