"""UEFI beyond PXE: HTTP boot of a loader, and of a whole image that the firmware checks before it starts it."""

from __future__ import annotations

import functools
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from e2e.conftest import BOOT_SECONDS

from pxeserver.local import netlab, qemu
from pxeserver.model import STAGES, Result, Stage

HTTP = qemu.Hardware(mac="52:54:00:77:03:01", uefi=True, rom="", network="http")
OWNER = "6e6f7420-7365-6372-6574-000000000001"  # whose keys they are, in the firmware's variables


def test_http_boot_to_the_loader_and_on_to_up(site: Any) -> None:
    site.cli("machines", "add", "http", HTTP.mac)
    site.cli("assign", "http", "web")
    machine = site.switch_on("http", HTTP)
    record = site.wait_up(machine)
    assert record.result is Result.UP
    assert sorted(record.stages, key=STAGES.index) == list(STAGES)
    assert record.loader == "snponly.efi"
    assert "<" in site.page(machine)
    events = site.fleet.events(boot=record.id, limit=1000)
    assert {event.data["style"] for event in events if event.kind == "offer"} >= {"http"}
    # fetched from an address that the site's own server gave, and by TCP: TFTP was never asked
    assert record.stages[Stage.LOADER].peer.startswith("10.77.0.1")
    assert "Start HTTP Boot over IPv4" in machine.console
    assert "Start PXE over" not in machine.console


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """(private key, certificate, variables of a firmware that trusts this certificate and nothing else)."""
    folder = tmp_path_factory.mktemp("keys")
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "our own key")])
    now = datetime.now(UTC)
    cert = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=30))
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "key.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    (folder / "cert.pem").write_bytes(cert.public_bytes(pem))
    _, template = qemu.firmware(qemu.Hardware(uefi=True))
    owned = [OWNER, str(folder / "cert.pem")]
    subprocess.run(
        [
            *(str(Path(sys.executable).with_name("virt-fw-vars")), "--input", str(template)),
            *("--output", str(folder / "vars.fd"), "--set-pk", *owned, "--add-kek", *owned, "--add-db", *owned),
            "--secure-boot",
        ],
        check=True,
        capture_output=True,
    )
    return folder / "key.pem", folder / "cert.pem", folder / "vars.fd"


def test_secure_boot_refuses_a_loader_and_starts_a_whole_image_signed_by_the_site(
    site: Any, keys: tuple[Path, Path, Path]
) -> None:
    key, cert, variables = keys
    hardware = qemu.Hardware(
        mac="52:54:00:77:03:02", uefi=True, rom="", network="http", secure=True, variables=variables
    )
    site.cli("machines", "add", "whole", hardware.mac)
    site.cli("assign", "whole", "other")
    made = site.cli("images", "uki", "other", "--key", str(key), "--cert", str(cert))

    site.cli("pin", "whole", "loader=snponly.efi")
    with qemu.Machine(site.lab, "refused", hardware) as refused:
        netlab.wait_until(lambda: "Access Denied" in refused.console, 120, "the firmware's refusal")
        assert "iPXE" not in refused.console

    site.cli("pin", "whole", "--off")
    machine = site.switch_on("whole", hardware)
    record = site.wait_up(machine)
    assert record.result is Result.UP
    # switched off and on again before anything was heard of it, it is at the same boot: there is the refused loader
    assert sorted(record.stages, key=STAGES.index) == [s for s in STAGES if s is not Stage.SCRIPT]
    assert (record.spec, record.image) == ("other", made["digest"])
    assert record.stages[Stage.KERNEL].bytes == made["uki"]["size"]
    assert "the-other-one" in site.page(machine)
    assert "Secure boot enabled" in machine.console
    assert "server: http://10.77.0.2" in machine.console  # nothing on its command line told it


SIGNED = qemu.Hardware(mac="52:54:00:77:03:03", uefi=True, rom="", secure=True)


@pytest.mark.timeout(1200)
def test_secure_boot_with_the_keys_of_every_machine_by_shim_and_a_signed_grub(open_site: Any, tmp_path: Path) -> None:
    lab = functools.partial(netlab.Lab, next_server=netlab.SERVER_ADDRESS)
    with open_site(tmp_path, network=lab) as site:
        site.cli("loaders", "fetch", "--secure-boot")
        site.cli("machines", "add", "signed", SIGNED.mac)
        site.cli("pin", "signed", "loader=shimx64.efi")
        site.cli("assign", "signed", "other", "--arg", "panic=17")
        machine = site.switch_on("signed", SIGNED)
        # kernel and initrd come in blocks of 1 KiB, one after the other
        record = site.wait_for(machine, "up", lambda record: record.stage is Stage.UP, 2 * BOOT_SECONDS)
        assert record.result is Result.UP
        assert sorted(record.stages, key=STAGES.index) == list(STAGES)
        assert record.loader == "shimx64.efi"
        assert "the-other-one" in site.page(machine)
        assert "Secure boot enabled" in machine.console
        assert "panic=17" in machine.console  # its own command line, though GRUB read it
