"""What is shipped to run inside machines: recipes, labels, scripts, and the specs that use them."""

from __future__ import annotations

import base64
import json
import re
import subprocess
from pathlib import Path

import pytest

from pxeserver.checked import replace
from pxeserver.errors import NotFound
from pxeserver.linuxkit import label, loader, plan
from pxeserver.linuxkit.loader import SpecSource
from pxeserver.local.bases import recipe
from pxeserver.resources import shipped

pytestmark = pytest.mark.server  # the scripts are run by busybox, as on a machine

NAMES = recipe.names()
SPECS = sorted((shipped("config") / "specs").glob("*.yml"))
SCRIPTS = sorted(
    p for p in recipe.FILES.rglob("*") if p.is_file() and (p.suffix == ".sh" or p.read_bytes()[:9] == b"#!/bin/sh")
)


def shell(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["busybox", "sh", *words], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_whole(name: str) -> None:
    one = recipe.load(name)
    assert one.summary and (one.packages or one.kernel)
    assert one.own_files == recipe.load(recipe.PREFIX + name).own_files
    for to, file in one.own_files:
        assert file.is_file(), f"{to} comes from {file}, which is not there"
    if one.label:
        label.parse(json.dumps(dict(one.label)), name)
        assert one.command


def test_every_image_that_the_issue_asks_for_is_there() -> None:
    assert {
        "agent", "ca-certificates", "containerd", "dhcpcd", "firmware", "format", "getty", "httpd", "init", "kernel",
        "kernel-cloud", "modprobe", "mount", "ntpd", "runc", "sshd", "sysctl", "watchdog",
    } <= set(NAMES)  # fmt: skip


def test_an_unknown_image_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(NotFound) as caught:
        recipe.load("pxeserver/contained")
    assert caught.value.slug == "base-not-found" and 'did you mean "containerd"' in caught.value.message


def test_the_digest_follows_everything_that_goes_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = recipe.load("sysctl")
    first = one.digest(("busybox=1",), 1)
    assert one.digest(("busybox=1",), 1) == first
    others = {
        one.digest(("busybox=2",), 1),
        one.digest(("busybox=1",), 2),
        replace(one, summary="other").digest(("busybox=1",), 1),
    }
    changed = tmp_path / "sysctl/root/bin/set-all"
    changed.parent.mkdir(parents=True)
    changed.write_text("#!/bin/sh\n")
    monkeypatch.setattr(recipe, "FILES", tmp_path)
    others.add(one.digest(("busybox=1",), 1))
    assert len(others) == 4 and first not in others


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: str(p.relative_to(recipe.FILES)))
def test_a_script_is_sound_for_busybox(script: Path) -> None:
    checked = shell("-n", str(script))
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.parametrize("spec", SPECS, ids=lambda p: p.stem)
def test_a_shipped_spec_loads_and_uses_images_that_exist(spec: Path) -> None:
    loaded = loader.load((SpecSource(spec.name, spec.read_text()),), strict=True)
    assert loaded.warnings == ()
    ours = {use.ref for use in plan.uses(loaded) if use.ref.startswith("docker.io/" + recipe.PREFIX)}
    assert ours
    assert ours <= {f"docker.io/{recipe.PREFIX}{name}" for name in NAMES}


def test_the_command_line_is_taken_apart(tmp_path: Path) -> None:
    line = tmp_path / "cmdline"
    line.write_text(
        "quiet console=tty0 console=ttyS0,115200n8 BOOTIF=01-AA-bb-cc-dd-ee-ff pxeserver.url=http://a/b=c ro\n"
    )
    lib = (recipe.FILES / "common/lib.sh").read_text().replace("/proc/cmdline", str(line))
    (tmp_path / "lib.sh").write_text(lib)
    asked = f". {tmp_path}/lib.sh; cmdline console; cmdline pxeserver.url; cmdline quiet; cmdline pxeserver"
    assert shell("-c", asked).stdout.split() == ["tty0", "ttyS0,115200n8", "http://a/b=c"]


def test_keys_are_named_by_what_they_begin_with(tmp_path: Path) -> None:
    """OpenSSH's public keys: base64 of the length of the kind's name, then the name (RFC 4253, 6.6)."""
    script = (recipe.FILES / "sshd/root/bin/sshd").read_text()
    kind = script[script.index("kind() {") : script.index("\n}\n") + 3]
    for name in ("ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"):
        blob = base64.b64encode(len(name).to_bytes(4, "big") + name.encode() + b"\0\0\0\3\1\0\1rest").decode()
        assert shell("-c", f"{kind}\nkind {blob}").stdout == name + "\n"
    assert shell("-c", f"{kind}\nkind AAAAB3NzaC1kc3MAAA").returncode == 1


def test_every_image_and_what_it_reads_is_documented() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs/bases.md").read_text()
    rows = "\n".join(line.partition("|")[2].partition("|")[0] for line in text.splitlines() if line.startswith("|"))
    assert [name for name in NAMES if f"`{name}`" not in rows] == []
    scripts = "\n".join(script.read_text() for script in SCRIPTS)
    read = set(re.findall(r"cmdline ([a-zA-Z_.]+)", scripts))
    assert read == {
        "BOOTIF", "console", "pxeserver.ssh_key", "pxeserver.url",
        "linuxkit.runc_console", "linuxkit.runc_debug", "linuxkit.unified_cgroup_hierarchy",
    }  # fmt: skip
    assert [key for key in read if f"`{key}=" not in text] == []
