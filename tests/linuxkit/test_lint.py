"""Every lint rule found and not found, its place, and the page that explains it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from pxeserver.errors import UsageError
from pxeserver.linuxkit import lint, loader
from pxeserver.linuxkit.entries import ImageDefaults
from pxeserver.linuxkit.label import LABEL
from pxeserver.linuxkit.lintbase import Base, Finding
from pxeserver.resources import shipped

Load = Callable[..., loader.Loaded]
SPECS = Path(__file__).parent / "specs"
HASH = "8eea386739975a43af558eec757a7dcb3a3d2e7b"
WHOLE = (
    "kernel: {image: k, cmdline: '%s'}\ninit: [i, runc, containerd]\n"
    "onboot: [{name: d, image: dhcpcd}%s]\nservices: [{name: g, image: getty%s}%s]\nfiles: [%s]\n"
)


def whole(cmdline: str = "console=tty0", onboot: str = "", getty: str = "", services: str = "", files: str = "") -> str:
    """A spec without a fault but for what is put into it."""
    return WHOLE % (cmdline, onboot and ", " + onboot, getty and ", " + getty, services and ", " + services, files)


def base(paths: str = "", label: str = "", digest: str = "sha256:1", cmd: tuple[str, ...] = ()) -> Base:
    defaults = ImageDefaults(cmd=cmd, labels={LABEL: label} if label else {})
    return Base(digest, defaults, lambda: frozenset(paths.split()))


def rules(found: tuple[Finding, ...]) -> list[str]:
    return [f.rule for f in found]


def linted(load: Load, text: str, bases: dict[str, Base] | None = None) -> list[str]:
    full = {f"docker.io/library/{name}": b for name, b in (bases or {}).items()}
    return rules(lint.lint(load(text), full, ignored=["image-unpinned"]))


RO = "{name: s, image: x, readonly: true, %s}"
FOUND = [
    ("dhcp-missing", whole().replace("dhcpcd", "x")),
    ("dhcp-stays", whole(onboot="{name: e, image: x, command: [dhcpcd, --nobackground]}")),
    ("getty-missing", whole().replace("getty", "x")),
    ("getty-elsewhere", whole("console=ttyS0,115200", getty="command: [agetty, -L, ttyS1]")),
    ("getty-elsewhere", whole("console=tty0 console=hvc0", getty="command: [agetty, tty0]")),
    ("console-missing", whole("quiet")),
    ("console-missing", whole("console=null")),
    ("metadata-early", whole().replace("[{name: d", "[{name: m, image: a/metadata, command: [metaldata]}, {name: d")),
    ("metadata-slow", whole(onboot="{name: m, image: linuxkit/metadata}")),
    ("metadata-slow", whole(onboot="{name: m, image: metadata, command: [/usr/bin/metadata, cdrom, aws]}")),
    ("init-incomplete", whole().replace("init: [i, runc, containerd]", "init: [i, runc]")),
    ("init-incomplete", whole().replace("init: [i, runc, containerd]", "")),
    ("sshd-no-keys", whole(services="{name: s, image: linuxkit/sshd}")),
    ("file-shadowed", whole(files="{path: /var/x, contents: x, mode: '0644'}")),
    ("file-shadowed", whole(files="{path: ./run/x, directory: true, mode: '0755'}")),
    ("folder-mode", whole(files="{path: etc/x, contents: x}")),
    ("folder-mode", whole(files="{path: usr/a/b, contents: x, mode: '0640'}")),
    ("mount-point-unsure", whole(services=RO % "binds: ['/etc/x:/etc/x']")),
    ("mount-point-unsure", whole(services=RO % "tmpfs: ['/tmp:size=1m']")),
    ("mount-point-unsure", whole(services=RO % "mounts: [{type: bind, source: /a, destination: /b}]")),
    ("trust-unused", whole() + "trust: {org: [linuxkit]}"),
    ("secret-private-key", whole(files='{path: k, contents: "x\\n-----BEGIN RSA PRIVATE KEY-----\\n", mode: "0644"}')),
    ("secret-private-key", whole(getty="env: ['K=-----BEGIN PRIVATE KEY-----']")),
    ("secret-token", whole(files="{path: k, contents: glpat-0123456789abcdefghij, mode: '0644'}")),
    ("secret-token", whole(getty="command: [x, --key=AKIA0123456789ABCDEF]")),
    ("secret-password-hash", whole(files="{path: k, contents: 'root:$6$abcdefgh$0123456789abcdef::'}")),
    ("secret-password-hash", whole(files="{path: k, contents: '$2b$05$abcdefghijklmnopqrstuu'}")),
    ("secret-password", whole("console=tty0 wifi.passphrase=abc")),
    ("secret-password", whole(getty="env: [MYSQL_ROOT_PASSWORD=abc]")),
    ("secret-password", whole(getty="command: [x, --db-password=abc]")),
    ("secret-password", whole(getty="env: ['DB=postgres://me:abc@db/x']")),
    ("secret-password", whole(getty="annotations: {api-key: abc}")),
    ("secret-password", whole(files="{path: c, contents: '{\"auths\": {\"r\": {\"auth\": \"bTp3\"}}}', mode: '0644'}")),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "text"), FOUND)
def test_found(load: Load, rule: str, text: str) -> None:
    assert linted(load, text) == [rule]


CLEAN = [
    whole(),
    whole() + "trust: {org: [library], image: [getty]}",
    "onboot: [{name: x, image: a/metadata, command: [cdrom]}]",  # a part of a spec, to be appended to others
    whole("console=tty0 ip=dhcp").replace("dhcpcd", "x"),
    whole().replace("dhcpcd", "linuxkit/ip"),
    whole(onboot="{name: e, image: x, command: [dhcpcd, --nobackground, '-1']}"),
    whole(services="{name: e, image: x, command: [dhcpcd, --nobackground]}"),
    whole("console=ttyS0,115200n8", getty="command: [agetty, ttyS0]"),
    whole("quiet", getty="command: [agetty, ttyS0]"),
    whole("quiet").replace("getty", "x"),
    whole(onboot="{name: m, image: linuxkit/metadata, command: [/usr/bin/metadata, metaldata, cdrom]}"),
    whole(onboot="{name: m, image: pxeserver/metadata}"),
    whole().replace("[{name: d", "[{name: m, image: a/metadata, command: [cdrom]}, {name: d"),
    whole(services="{name: s, image: linuxkit/sshd}, {name: m, image: pxeserver/metadata}"),
    whole("console=tty0 pxeserver.ssh_key=AAAA", services="{name: s, image: sshd}"),
    whole(files="{path: etc/x, contents: x, mode: '0644'}, {path: etc/y, contents: x}"),
    whole(files="{path: etc, directory: true, mode: '0755'}, {path: etc/x, contents: x}"),
    whole(files="{path: custom/x, contents: x}, {path: varnish, contents: x}"),
    whole(services=RO % "binds: ['/etc/resolv.conf:/etc/resolv.conf', '/dev:/dev', '/a:/sys/a']"),
    whole(services=RO % "tmpfs: [/dev/x]"),
    whole(services=RO % "binds: ['/etc/x:/etc/x']").replace("readonly: true", "readonly: false"),
    whole(getty="env: [DB_PASSWORD_FILE=/run/x, PASSWORD=$SECRET, TOKEN=, SECRET=/run/secrets/x, A_TOKEN=none]"),
    whole(getty="env: ['U=https://example.org/a@b', 'V=https://me@example.org/', 'PATH=/bin:/sbin']"),
    whole(files="{path: k, contents: 'PasswordAuthentication no $1$short ssh-ed25519 AAAA', mode: '0644'}"),
    whole(files='{path: k, contents: "-----BEGIN PUBLIC KEY-----", mode: "0644"}'),
]


@pytest.mark.parametrize("text", CLEAN)
def test_not_found(load: Load, text: str) -> None:
    assert linted(load, text) == []


def test_mount_points_are_looked_up_in_the_image_that_is_here(load: Load) -> None:
    text = whole(services=RO % "binds: ['/etc/a:/here', '/etc/b:/gone', '/etc/c:/here/below'], tmpfs: [/here]")
    label = '{"capabilities": [], "net": "new"}'
    assert linted(load, text, {"x": base("etc here bin/sh", label)}) == ["mount-point-missing"]
    (found,) = lint.lint(load(text), {"docker.io/library/x": base("here", label)}, ignored=["image-unpinned"])
    assert "/gone" in found.text and str(found.where) == "1.yml:4:97: services[1].binds[1]"
    with_file = text.replace(
        "files: []", "files: [{path: containers/services/s/rootfs/gone, contents: '', mode: '0644'}]"
    )
    assert linted(load, with_file, {"x": base("here", label)}) == []


def test_labels_count_like_what_the_spec_says(load: Load) -> None:
    text = whole(services="{name: s, image: x}")
    found = lint.lint(load(text), {"docker.io/library/x": base("", '{"readonly": true, "binds": ["/a:/b"]}')})
    (missing,) = (f for f in found if f.rule == "mount-point-missing")
    assert str(missing.where).endswith("label org.mobyproject.config of x:1:30: binds[0]")


def test_the_command_of_an_image_that_is_here_counts(load: Load) -> None:
    text = whole(onboot="{name: e, image: x}")
    command = ("/sbin/dhcpcd", "--nobackground")
    assert linted(load, text, {"x": base("", "{capabilities: []}", cmd=command)}) == ["dhcp-stays"]


def test_ordinary_images_need_capabilities_and_a_resolver(load: Load) -> None:
    text = whole(services="{name: s, image: x%s}")
    ordinary = {"x": base()}
    assert linted(load, text % "", ordinary) == ["no-capabilities", "no-resolver"]
    assert linted(load, text % ", capabilities: []", ordinary) == ["no-resolver"]
    assert linted(load, text % ", uid: 1000, net: new", ordinary) == []
    assert linted(load, text % ", capabilities: [all], binds: ['/etc/resolv.conf:/etc/resolv.conf']", ordinary) == []
    assert linted(load, text % "", {"x": base("", "{}")}) == []
    assert linted(load, text % "") == []


def test_one_image_under_two_names(load: Load) -> None:
    text = whole(services="{name: s, image: x, net: new}, {name: t, image: 'x:1', net: new}")
    label = "{capabilities: []}"
    assert linted(load, text, {"x": base("", label), "x:1": base("", label)}) == ["image-repeated"]
    assert linted(load, text, {"x": base("", label), "x:1": base("", label, "sha256:2")}) == []


def test_pins(load: Load) -> None:
    digest = "sha256:" + "0" * 64
    refs = ["a/x", "a/x:1", f"a/x:1@{digest}", f"a/x:{HASH}", f"a/x:{HASH}-amd64", "pxeserver/init", "a/locked:1"]
    loaded = load(f"init: {refs}")
    found = lint.lint(loaded, pinned=["docker.io/a/locked:1"])
    assert [(f.rule, f.where.field) for f in found] == [("image-unpinned", "init[0]"), ("image-unpinned", "init[1]")]
    here = lint.lint(load("init: [a/x]"), {"docker.io/a/x": base(digest=digest)})
    assert f"docker.io/a/x@{digest}" in here[0].fix


def test_secrets_in_files_that_the_spec_takes_in(load: Load, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nsecret\n")
    (tmp_path / "binary").write_bytes(bytes(range(256)) * 16)
    text = "files: [{path: a, source: key}, {path: b, source: binary}, {path: c, source: absent}]"
    (found,) = lint.lint(load(text, folder=tmp_path))
    assert (found.rule, found.where.field) == ("secret-private-key", "files[0].source")


def test_no_finding_repeats_a_secret() -> None:
    text = (SPECS / "lint.yml").read_text()
    found = lint.lint(loader.load([loader.SpecSource("lint.yml", text)]))
    told = " ".join(f"{f.text} {f.fix}" for f in found)
    assert not [secret for secret in ("hunter2", "swordfish", "ghp_", "$6$", "BEGIN EC") if secret in told]


def test_the_whole_report(golden: Callable[[str, bytes], None]) -> None:
    text = (SPECS / "lint.yml").read_bytes()
    found = lint.lint(loader.load([loader.SpecSource("lint.yml", text)]))
    golden("lint.txt", "".join(f"{f}\n  fix: {f.fix}\n" for f in found).encode())


def test_rules_can_be_left_out(load: Load) -> None:
    loaded = load(whole(files="{path: var/x, contents: x}"))
    assert rules(lint.lint(loaded, ignored=["image-unpinned", "file-shadowed"])) == []
    with pytest.raises(UsageError, match='no rule "file-shadow" - did you mean "file-shadowed"'):
        lint.lint(loaded, ignored=["file-shadow"])


@pytest.mark.parametrize("name", ["web", "bare-metal"])
def test_the_shipped_specs_are_clean(name: str) -> None:
    path = shipped("config") / "specs" / f"{name}.yml"
    assert lint.lint(loader.load([loader.SpecSource(name, path.read_bytes(), path.parent)])) == ()


def test_every_rule_is_explained_with_its_level() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "lint.md").read_text()
    rows = re.findall(r"^\| `([a-z-]+)` \| (error|warning) \| ", page, re.MULTILINE)
    assert rows == [(rule.slug, rule.level) for rule in _in_the_order_of_the_page(rows)]


def _in_the_order_of_the_page(rows: list[tuple[str, str]]) -> list[lint.Rule]:
    order = [slug for slug, _ in rows]
    assert sorted(order) == sorted(rule.slug for rule in lint.RULES)
    return sorted(lint.RULES, key=lambda rule: order.index(rule.slug))


def test_every_rule_is_found_by_some_test() -> None:
    source = Path(__file__).read_text()
    assert [rule.slug for rule in lint.RULES if f'"{rule.slug}"' not in source] == []
