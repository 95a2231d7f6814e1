"""The base images really made, twice, and what is in them really run: init's scripts with runc, in namespaces."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import stat
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pxeserver.errors import NotFound, Unreachable
from pxeserver.images.progress import Silent
from pxeserver.images.store import Store
from pxeserver.local.bases import lock, make, recipe
from pxeserver.local.bases.make import Made, Wish

pytestmark = [pytest.mark.server, pytest.mark.timeout(300)]
NAMES = ("init", "runc", "dhcpcd", "ca-certificates")


def build(data: Path, wish: Wish) -> dict[str, Made]:
    data.mkdir(exist_ok=True)
    return {m.name: m for m in make.build(data, Store(data / "store"), wish, Silent())}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bases")
    build(folder, Wish(names=NAMES))
    return folder


def test_what_did_not_change_is_not_made_again(data: Path) -> None:
    before = (data / "bases.lock.json").read_text()
    again = build(data, Wish(names=NAMES))
    assert {m.state for m in again.values()} == {"unchanged"}
    assert (data / "bases.lock.json").read_text() == before
    states = {b.name: b.state for b in make.listing(Store(data / "store"), lock.read(data / "bases.lock.json").arch)}
    assert states["init"] == "present" and states["kernel"] == "missing"


def test_the_recorded_packages_give_the_same_bytes_elsewhere(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = build(data, Wish(names=NAMES))
    other = tmp_path / "other"
    (other / "cache").mkdir(parents=True)
    shutil.copytree(data / "cache/packages", other / "cache/packages")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    monkeypatch.chdir("/")
    before = os.umask(0o077)
    try:
        second = build(other, Wish(names=NAMES, locked=lock.read(data / "bases.lock.json")))
    finally:
        os.umask(before)
    assert {n: (m.digest, m.state) for n, m in second.items()} == {n: (m.digest, "built") for n, m in first.items()}
    assert (other / "bases.lock.json").read_text() == (data / "bases.lock.json").read_text()


def test_a_damaged_cached_package_is_fetched_again(data: Path, tmp_path: Path) -> None:
    record = lock.read(data / "bases.lock.json")
    other = tmp_path / "other"
    shutil.copytree(data / "cache/packages", other / "cache/packages")
    (package,) = record.images["ca-certificates"]
    cached = other / "cache/packages" / f"{package.sha256}.deb"
    cached.write_bytes(bytes(package.size))
    shutil.copytree(data / "cache/apt", other / "cache/apt")
    made = build(other, Wish(names=["ca-certificates"], locked=record))
    assert made["ca-certificates"].digest == build(data, Wish(names=["ca-certificates"]))["ca-certificates"].digest


def test_a_record_without_the_image_is_refused(data: Path) -> None:
    with pytest.raises(NotFound) as caught:
        build(data, Wish(names=["sshd"], locked=lock.read(data / "bases.lock.json")))
    assert caught.value.slug == "lock-image"


# --- what is in them -------------------------------------------------------------------------------------------------


def extract(data: Path, name: str, root: Path) -> None:
    store = Store(data / "store")
    arch = lock.read(data / "bases.lock.json").arch
    found = store.resolve(f"docker.io/{recipe.PREFIX}{name}", arch)
    assert found is not None
    for layer in store.read_json(found.digest)["layers"]:
        with tarfile.open(store.blob_path(layer["digest"])) as archive:
            archive.extractall(root, filter="fully_trusted")


@pytest.fixture
def system(data: Path, tmp_path: Path) -> Path:
    """The root file system of a machine with init and runc."""
    root = tmp_path / "root"
    for name in ("init", "runc", "dhcpcd"):
        extract(data, name, root)
    return root


# The root of the namespace becomes the tree as /init makes it: a bind mount moved over /, which runc can pivot from.
ENTER = r"""
set -e
root=$1; shift
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount --rbind /sys/fs/cgroup "$root/sys/fs/cgroup"
for folder in dev run tmp var; do mount -t tmpfs tmpfs "$root/$folder"; done
mkdir -p "$root/dev/pts" "$root/var/log"
for node in null:3 zero:5 full:7 random:8 urandom:9; do mknod -m 666 "$root/dev/${node%:*}" c 1 "${node#*:}"; done
mknod -m 666 "$root/dev/console" c 1 3
printf 'console=console %s\n' "$CMDLINE" >"$root/run/cmdline"
mount --bind "$root/run/cmdline" "$root/proc/cmdline"
ip link set lo up
cd "$root"
mount --move . /
exec chroot . /bin/sh -c "$*"
"""


def inside(root: Path, script: str, cmdline: str = "") -> subprocess.CompletedProcess[str]:
    words = ["unshare", "-m", "-p", "-n", "-u", "-i", "--fork", "--kill-child", "--propagation", "private"]
    return subprocess.run(
        [*words, "sh", "-c", ENTER, "enter", str(root), script],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={"PATH": os.environ["PATH"], "CMDLINE": cmdline},
    )


def container(root: Path, folder: str, script: str, **runtime: Any) -> None:
    """A container as LinuxKit lays it down: writable overlay over `lower`, config.json, runtime.json."""
    base = root / "containers" / folder
    for name in ("lower/bin", "lower/proc", "lower/dev", "lower/out", "tmp", "rootfs"):
        (base / name).mkdir(parents=True)
    shutil.copy(root / "bin/busybox", base / "lower/bin/busybox")
    (base / "lower/bin/sh").symlink_to("busybox")
    new = ["network"] if runtime.pop("net", "") == "new" else []
    config = {
        "ociVersion": "1.2.1",
        "process": {"user": {"uid": 0, "gid": 0}, "args": ["/bin/sh", "-c", script], "cwd": "/", "capabilities": {}},
        "root": {"path": "rootfs"},
        "mounts": [
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
            {"destination": "/out", "type": "bind", "source": "/var/out", "options": ["rw", "rbind"]},
            {"destination": "/proc", "type": "proc", "source": "proc"},
        ],
        "linux": {"resources": {}, "namespaces": [{"type": kind} for kind in (*new, "pid", "mount")]},
    }
    at = f"/containers/{folder}"
    overlay = [f"lowerdir={at}/lower", f"upperdir={at}/tmp/upper", f"workdir={at}/tmp/work"]
    mounts = [
        {"destination": f"{at}/tmp", "type": "tmpfs", "source": "tmpfs"},
        {"destination": f"{at}/tmp", "options": ["remount", "private"]},
        {"destination": f"{at}/rootfs", "type": "overlay", "source": "overlay", "options": overlay},
        *runtime.pop("mounts", []),
    ]
    mkdir = ["/var/out", *runtime.pop("mkdir", [])]
    (base / "config.json").write_text(json.dumps(config))
    (base / "runtime.json").write_text(json.dumps({"mounts": mounts, "mkdir": mkdir, **runtime}))


def test_onboot_containers_run_in_order_and_a_failure_stops_nothing(system: Path) -> None:
    container(system, "onboot/000-first", "echo first | tee -a /out/order /new-file; ls -d /made; cat /greeting",
              mounts=[{"destination": "made", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m"]}],
              mkdir=["/run/some where/deep"])  # fmt: skip
    (system / "containers/onboot/000-first/lower/greeting").write_text('it\'s a "quoted" $HOME\n')
    container(system, "onboot/001-fails", "echo second >>/out/order; echo 'went wrong' >&2; exit 3")
    container(system, "onboot/002-after", "echo third >>/out/order")
    (system / "containers/onboot/003-broken").mkdir()
    (system / "containers/onboot/003-broken/config.json").write_text("{")
    shown = inside(
        system,
        """/etc/init.d/010-onboot
        echo order: $(cat /var/out/order)
        for log in 000-first 001-fails; do cat /var/log/onboot/onboot.$log.out.log /var/log/onboot/onboot.$log.log; done
        ls -d '/run/some where/deep'
        echo "mounts left: $(grep -c /containers/ /proc/mounts)"
    """,
    )
    assert shown.stdout.splitlines() == [
        "order: first second third",
        "first",
        "/made",
        'it\'s a "quoted" $HOME',
        "went wrong",
        "/run/some where/deep",
        "mounts left: 0",
    ], shown.stderr
    assert not (system / "containers/onboot/000-first/lower/new-file").exists()


def test_interfaces_are_made_and_namespaces_kept(system: Path) -> None:
    container(
        system,
        "onboot/000-net",
        "cat /proc/net/dev | cut -d: -f1 | grep -o in.*",
        net="new",
        interfaces=[
            {"name": "in0", "add": "veth", "peer": "out0", "createInRoot": True},
            {"name": "in1", "add": "bridge"},
            {"name": "in2"},
        ],
        bindNS={"net": "/run/netns/kept", "mnt": ""},
    )
    shown = inside(
        system,
        """/sbin/ip link add name in2 type veth peer name out2
        /etc/init.d/010-onboot
        cat /var/log/onboot/onboot.000-net.out.log | sort; cat /var/log/onboot/onboot.000-net.log
        nsenter -n/run/netns/kept /sbin/ip -o link show in0 | grep -o 'in0@[^:]*'
        ls /sys/class/net
    """,
    )
    assert shown.stdout.split() == ["in0", "in1", "in2", "in0@if4", "lo", "out0", "out2"], shown.stdout + shown.stderr


def test_onshutdown_is_onboot_for_the_end(system: Path) -> None:
    container(system, "onshutdown/000-bye", "echo bye")
    shown = inside(system, "/etc/shutdown.d/010-onshutdown; cat /var/log/onshutdown/onshutdown.000-bye.out.log")
    assert shown.stdout == "bye\n", shown.stderr


def test_volumes_are_writable_or_not(system: Path) -> None:
    for name, parts in (("rw", ("lower", "tmp", "merged")), ("ro", ("lower", "merged"))):
        for part in parts:
            (system / "containers/volumes" / name / part).mkdir(parents=True)
        (system / "containers/volumes" / name / "lower/file").write_text(name)
    shown = inside(
        system,
        """/etc/init.d/005-volumes
        cd /containers/volumes; cat rw/merged/file ro/merged/file
        touch rw/merged/new && echo ' written'; touch ro/merged/new || echo refused; ls rw/lower
    """,
    )
    assert shown.stdout == "rwro written\nrefused\nfile\n", shown.stderr


def test_a_service_by_its_own_name_says_how(system: Path) -> None:
    shown = inside(system, "service; echo $?; service start none; echo $?")
    assert shown.stdout.split() == ["2", "1"]
    assert "usage: service start|stop|restart NAME" in shown.stderr and "no service none" in shown.stderr


def test_the_logger_is_ready_at_once_and_keeps_the_streams_apart(system: Path) -> None:
    shown = inside(
        system,
        r"""mkfifo /tmp/out /tmp/err /tmp/ready
        (exec 7<>/tmp/out 8<>/tmp/err; exec 3</tmp/out 4</tmp/err 5>/tmp/ready 7<&- 8<&-
         CONTAINER_ID=web exec /usr/lib/pxeserver/log) & logger=$!
        exec 7>/tmp/out 8>/tmp/err; cat /tmp/ready; echo ready
        echo hello >&7; echo oops >&8
        head -c 9000000 /dev/zero >&7; echo more >&7
        exec 7>&- 8>&-; wait
        cat /var/log/web.log; cat /var/log/web.out.log.old /var/log/web.out.log | tr -d '\0'; ls /var/log
    """,
    )
    assert shown.stdout.split() == ["ready", "oops", "hello", "more", "web.log", "web.out.log", "web.out.log.old"]


class Server(http.server.ThreadingHTTPServer):
    """Remembers what is posted; refuses the first `failures` times."""

    failures = 0

    def __init__(self, address: tuple[str, int]) -> None:
        super().__init__(address, Handler)
        self.seen: list[str] = []


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.seen.append(f"{self.path} {body}")
        self.send_response(503 if self.server.failures else 204)
        self.server.failures = max(0, self.server.failures - 1)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0)) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.05,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def phone(folder: Path, server: Server, *words: str) -> subprocess.CompletedProcess[str]:
    """The script in the host's network, its own /proc/cmdline and /run aside."""
    (folder / "cmdline").write_text(f"quiet pxeserver.url=http://127.0.0.1:{server.server_port}/boot/T ro\n")
    for name in ("lib.sh", "phone"):
        text = (recipe.FILES / "common" / name).read_text()
        text = text.replace("/proc/cmdline", f"{folder}/cmdline").replace("/run/pxeserver", f"{folder}/run")
        (folder / name).write_text(text)
    argv = ["busybox", "sh", str(folder / "phone"), *words]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)


def test_a_stage_is_told_once_and_again_until_it_is_heard(tmp_path: Path, server: Server) -> None:
    server.failures = 1
    for _ in range(2):
        assert phone(tmp_path, server, "stage=up", "memory=1024", "text=a&b = 50% + ü").returncode == 0
    told = "/boot/T/event stage=up&memory=1024&text=a%26b+%3D+50%25+%2B+ü"
    assert server.seen == [told, told]


def test_a_cause_is_told_each_time_with_the_memory(tmp_path: Path, server: Server) -> None:
    for _ in range(2):
        assert phone(tmp_path, server, "cause=initrd-cut-short").returncode == 0
    mib = next(int(x.split()[1]) // 1024 for x in Path("/proc/meminfo").read_text().splitlines() if "MemTotal" in x)
    assert server.seen == [f"/boot/T/event memory={mib}&cause=initrd-cut-short"] * 2


def test_the_dhcp_client_sets_address_route_and_resolver_and_tells(system: Path) -> None:
    dnsmasq = shutil.which("dnsmasq") or "/usr/sbin/dnsmasq"
    (system / "site").mkdir()
    shutil.copy(dnsmasq, system / "site/dnsmasq")
    for line in subprocess.run(["ldd", dnsmasq], capture_output=True, text=True, check=True).stdout.splitlines():
        found = next((word for word in line.split() if word.startswith("/")), "")
        if found:
            shutil.copy(found, system / "site" / Path(found).name)
    loader = next(p.name for p in (system / "site").iterdir() if p.name.startswith("ld-linux"))
    shown = inside(
        system,
        f"""exec 2>/tmp/errors
        /sbin/ip link add name eth0 type veth peer name site0
        unshare -n sleep 1000 & sleep 0.3; other=$!
        /sbin/ip link set site0 netns $other
        site="nsenter -t $other -n"
        $site /sbin/ip addr add 10.9.8.1/24 dev site0; $site /sbin/ip link set site0 up; $site /sbin/ip link set lo up
        echo 'root:x:0:0::/:/bin/sh' >/tmp/passwd
        $site /site/{loader} --library-path /site /site/dnsmasq --conf-file=/dev/null --port=0 --interface=site0 \\
            --dhcp-range=10.9.8.50,10.9.8.50,255.255.255.0 --dhcp-option=3,10.9.8.1 --dhcp-option=6,10.9.8.1 \\
            --dhcp-option=15,site.example --dhcp-option=42,10.9.8.7 --user=root --group=root --leasefile-ro \\
            --pid-file=/tmp/dnsmasq.pid --log-facility=/tmp/dnsmasq.log
        printf 'HTTP/1.0 204 No Content\r\n\r\n' | $site nc -l -p 8080 >/tmp/heard &
        hostname machine-7
        /sbin/dhcpcd -1 eth0 >/tmp/talk; echo "exit $?"
        /sbin/ip -o -4 addr show dev eth0 | awk '{{print $4}}'
        /sbin/ip route show default | awk '{{print $3}}'
        cat /run/resolvconf/resolv.conf /run/pxeserver/ntp /run/pxeserver/lease/eth0
        grep -c 'stage=network' /tmp/heard
        /usr/lib/pxeserver/find-server eth0; echo "found: $? $(cat /run/pxeserver/url)"
        grep -q 'DHCPINFORM.* 10.9.8.50' /tmp/dnsmasq.log && echo "informed"
        grep -o 'client provides name: .*' /tmp/dnsmasq.log | sort -u
        kill $(cat /tmp/dnsmasq.pid) $other; cat /tmp/errors
        """,
        cmdline="pxeserver.url=http://10.9.8.1:8080/boot/T",
    )
    # the site's server answers the question for our server too, and that is no answer
    assert shown.stdout.split("\n")[:10] == [
        "exit 0",
        "10.9.8.50/24",
        "10.9.8.1",
        "search site.example",
        "nameserver 10.9.8.1",
        "10.9.8.7",
        "10.9.8.50",
        "1",
        "found: 1 ",
        "informed",
    ], shown.stdout + shown.stderr


def test_without_a_server_the_dhcp_client_gives_up_in_time(system: Path) -> None:
    began = time.monotonic()
    shown = inside(
        system,
        "/sbin/ip link add name eth0 type veth peer name x; DHCP_SECONDS=1 /sbin/dhcpcd -1 eth0 2>/dev/null; echo $?",
    )
    assert shown.stdout.split()[-1] == "1", shown.stderr
    assert time.monotonic() - began < 100


def test_init_has_what_linuxkit_expects_of_a_root(system: Path) -> None:
    for name in ("init", "mdev", "modprobe", "hwclock", "ip", "poweroff", "reboot"):
        assert os.path.lexists(system / "sbin" / name)
    for name in ("bin/rc.init", "bin/rc.shutdown", "usr/bin/service", "usr/bin/runc", "init"):
        assert (system / name).stat().st_mode & stat.S_IXUSR
    assert [p.name for p in sorted((system / "etc/init.d").iterdir())] == ["000-issue", "005-volumes", "010-onboot"]
    assert (system / "etc/init.d/010-onboot").readlink() == Path("/usr/bin/service")
    assert (system / "etc/shutdown.d/010-onshutdown").readlink() == Path("/usr/bin/service")
    for name in ("mnt", "proc", "sys", "dev", "run", "tmp", "var"):
        assert (system / name).is_dir()


def test_without_the_mirror_what_is_known_of_it_is_used(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(Silent, "say", lambda self, text: said.append(text))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    stamp = data / "cache/apt/refreshed"
    os.utime(stamp, (0, 0))
    assert build(data, Wish(names=["init"]))["init"].state == "unchanged"
    assert len(said) == 1 and said[0].startswith("going on with the package lists from before: apt-get: E:")
    with pytest.raises(Unreachable) as caught:
        build(data, Wish(names=["init"], refresh=True))
    assert caught.value.slug == "mirror-failed"
