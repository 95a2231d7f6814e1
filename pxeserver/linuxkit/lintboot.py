"""Lint rules about coming up: the network, the console, metadata, and what runs the containers."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator

from pxeserver.linuxkit.lintbase import Container, Problem, Rule, Subject

_DHCP = ("dhcp", "dhcpcd", "dhclient", "udhcpc", "networkd", "networkmanager", "connman", "connmand", "wicked")
_STATIC = ("ip", "ifup", "ifconfig")
_GETTY = ("getty", "agetty", "mingetty", "rungetty")
_TTY = re.compile(r"\b(?:tty(?:[A-Z]+|USB)?\d+|hvc\d+)\b")
_ONE_SHOT = frozenset(("-1", "--oneshot", "-T", "--test"))
_STAYS = frozenset(("-B", "--nobackground"))
# What linuxkit/metadata asks over the network, in its order; each that does not answer costs two seconds
_NETWORK = (
    *("aws", "gcp", "hetzner", "openstack", "scaleway", "vultr", "digitalocean", "equinixmetal", "packet"),
    *("metaldata",),
)


def consoles(subject: Subject) -> dict[str, str]:
    """Device -> the argument that names it, in the order of the command line."""
    named = [a.removeprefix("console=") for a in subject.arguments if a.startswith("console=")]
    return {device: f"console={text}" for text in named if (device := text.partition(",")[0]) not in ("", "null")}


def _dhcp_missing(subject: Subject) -> Iterator[Problem]:
    static = any(a.startswith("ip=") and a != "ip=off" for a in subject.arguments)
    if (
        subject.whole
        and not static
        and not any(c.is_a(*_DHCP, *_STATIC) for c in subject.section("onboot", "services"))
    ):
        yield Problem(
            subject.loaded.place("kernel", "image"),
            "nothing asks for an address: the machine stays without network once the kernel runs",
            'add an onboot container: {name: dhcpcd, image: linuxkit/dhcpcd:..., command: ["/sbin/dhcpcd", '
            '"--nobackground", "-f", "/dhcpcd.conf", "-1"]}',
        )


def _dhcp_stays(subject: Subject) -> Iterator[Problem]:
    for container in subject.section("onboot"):
        words = set(container.command)
        if container.is_a("dhcpcd") and words & _STAYS and not words & _ONE_SHOT:
            yield Problem(
                container.place("command"),
                f'"{container.own.name}" never ends, and onboot waits for it: nothing after it starts',
                'add "-1" to its command, or move it to services',
            )


def _getty_missing(subject: Subject) -> Iterator[Problem]:
    named = consoles(subject)
    if named and subject.whole and not any(c.is_a(*_GETTY) for c in subject.containers):
        yield Problem(
            subject.loaded.place("kernel", "cmdline"),
            f"nobody can log in on {', '.join(named)}: no container starts a getty",
            "add a service: {name: getty, image: linuxkit/getty:...}; it serves every console= of the command line",
        )


def _getty_elsewhere(subject: Subject) -> Iterator[Problem]:
    named = consoles(subject)
    gettys = [c for c in subject.containers if c.is_a(*_GETTY)]
    served = {tty for c in gettys for text in c.command for tty in _TTY.findall(text)}
    if not named or not served or not all(any(map(_TTY.search, c.command)) for c in gettys):
        return
    for device, argument in named.items():
        if device not in served:
            yield Problem(
                gettys[0].place("command"),
                f"the command line has {argument}, but a getty runs on {', '.join(sorted(served))} only",
                f"add {device} to the command, or change kernel.cmdline",
            )


def _console_missing(subject: Subject) -> Iterator[Problem]:
    getty = next((c for c in subject.containers if c.is_a(*_GETTY)), None)
    if not subject.whole or getty is None or consoles(subject) or any(map(_TTY.search, getty.command)):
        return
    yield Problem(
        getty.place(),
        f'"{getty.own.name}" starts a getty for each console= of the command line, and there is none',
        'kernel: {cmdline: "console=tty0 console=ttyS0"}; /dev/console is the last one',
    )


def _is_metadata(container: Container) -> bool:
    return posixpath.basename(container.image) == "metadata"


def _providers(container: Container) -> list[str]:
    """The arguments that name providers; a leading path is the program itself."""
    return [w for w in container.command if not w.startswith(("/", "-"))]


def _metadata_early(subject: Subject) -> Iterator[Problem]:
    onboot = list(subject.section("onboot"))
    first = next((i for i, c in enumerate(onboot) if c.is_a(*_DHCP, *_STATIC)), len(onboot))
    later = first < len(onboot) or any(c.is_a(*_DHCP) for c in subject.section("services"))
    for container in onboot[:first]:
        asked = _providers(container)
        if later and _is_metadata(container) and (not asked or not set(asked).isdisjoint(_NETWORK)):
            yield Problem(
                container.place(),
                f'"{container.own.name}" asks for metadata over the network before there is one',
                "put it behind the DHCP client in onboot",
            )


def _metadata_slow(subject: Subject) -> Iterator[Problem]:
    for container in subject.section("onboot", "services"):
        if not _is_metadata(container) or container.image.startswith("pxeserver/"):
            continue
        asked = _providers(container)
        network = [p for p in asked if p in _NETWORK]
        local = [p for p in asked if p not in _NETWORK]
        if not asked:
            yield Problem(
                container.place(),
                f'"{container.own.name}" names no provider: on an isolated network it waits two seconds for each cloud '
                "before it looks at a disk, and takes what the first to answer says",
                'name what there is: command: ["/usr/bin/metadata", "metaldata"], or "cdrom" alone',
            )
        elif network and local and asked.index(local[0]) < asked.index(network[-1]):
            yield Problem(
                container.place("command"),
                f"{local[0]} stands before {network[-1]}, but every network provider is asked before any disk or file",
                f"leave {', '.join(network)} out when {local[0]} is meant",
            )


def _init_incomplete(subject: Subject) -> Iterator[Problem]:
    spec = subject.loaded.spec
    if not subject.whole:
        return
    if not spec.init:
        where, text = subject.loaded.place("kernel", "image"), "there is no init: the kernel has nothing to start"
        yield Problem(where, text, "add an init section with images of init, runc and containerd")
        return
    last = subject.loaded.place("init", len(spec.init) - 1)
    names = " ".join(spec.init)
    for section, part in (("onboot", "runc"), ("onshutdown", "runc"), ("services", "containerd")):
        if getattr(spec, section) and part not in names:
            text = f"{section} needs {part}, and no image of init is called so: its containers would not start"
            yield Problem(last, text, f"add an image with {part} to init")


def _sshd_no_keys(subject: Subject) -> Iterator[Problem]:
    if any(_is_metadata(c) for c in subject.containers):
        return
    if any(posixpath.basename(f.path) == "authorized_keys" for f in subject.files):
        return
    if any(a.startswith("pxeserver.ssh_key=") for a in subject.arguments):
        return
    for container in subject.section("services"):
        if posixpath.basename(container.image) == "sshd":
            yield Problem(
                container.place(),
                f'"{container.own.name}" lets nobody in: there are no keys, and no metadata container that brings them',
                'files: [{path: root/.ssh/authorized_keys, source: ~/.ssh/id_ed25519.pub, mode: "0600"}]',
            )


RULES = (
    Rule("dhcp-missing", "warning", "no DHCP client and no static address", _dhcp_missing),
    Rule(
        "dhcp-stays", "error", "a DHCP client in onboot that never ends, so that nothing after it starts", _dhcp_stays
    ),
    Rule("getty-missing", "warning", "the command line names a console, and no container runs a getty", _getty_missing),
    Rule("getty-elsewhere", "warning", "gettys run on other consoles than the command line names", _getty_elsewhere),
    Rule("console-missing", "warning", "a getty, but no console= for it in the command line", _console_missing),
    Rule("metadata-early", "warning", "metadata is asked for over the network before the DHCP client", _metadata_early),
    Rule(
        "metadata-slow", "warning", "metadata providers that are asked in vain on an isolated network", _metadata_slow
    ),
    Rule(
        "init-incomplete", "warning", "no init, or no runc or containerd for the containers there are", _init_incomplete
    ),
    Rule("sshd-no-keys", "warning", "an SSH server that nobody has a key for", _sshd_no_keys),
)
