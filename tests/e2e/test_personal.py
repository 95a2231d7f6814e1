"""A machine with a name, keys and user data has them inside, and DNS knows its name; its image is everybody's."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from pxeserver.local import netlab, qemu
from pxeserver.model import Result

HARDWARE = qemu.Hardware(mac="52:54:00:77:05:01")
KEYS = "ssh-ed25519 AAAAC3one one@desk, ssh-ed25519 AAAAC3two two@desk"
FILES = {"/etc/greeting": "hello\n"}
SETTINGS = {"dns": {"enabled": True, "domain": "rack.test"}, "metadata": {"enabled": True}}


def dig(site: Any, *words: str) -> str:
    argv = site.lab.argv("lan", ["dig", "+short", f"@{netlab.SERVER_ADDRESS}", *words])
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()


def test_a_machine_has_what_is_its_own(open_site: Any, tmp_path: Path) -> None:
    with open_site(tmp_path, **SETTINGS) as site:
        site.cli("machines", "add", "web7", HARDWARE.mac)
        variables = [f"ssh_keys={KEYS}", "userdata=#!/bin/true\nsecret", f"files={json.dumps(FILES)}"]
        site.cli("machines", "set", "web7", *(word for text in variables for word in ("--var", text)))
        site.cli("assign", "web7", "personal")
        machine = site.switch_on("web7", HARDWARE)
        record = site.wait_up(machine)
        assert record.result is Result.UP
        address = dig(site, "web7.rack.test")
        assert address in {lease.address for lease in site.lab.leases() if lease.mac == HARDWARE.mac}
        assert dig(site, "-x", address) == "web7.rack.test."
        assert "<h1>web7</h1>" in site.page(machine)

        def shown(path: str) -> str:
            return str(site.lab.fetch("lan", f"http://{address}:81/{path}", timeout=10).decode())

        assert shown("run/config/hostname") == "web7\n"
        assert [line.strip() for line in shown("run/config/ssh/authorized_keys").splitlines()] == [
            "ssh-ed25519 AAAAC3one one@desk",
            "ssh-ed25519 AAAAC3two two@desk",
        ]
        assert shown("run/config/userdata") == "#!/bin/true\nsecret"
        assert shown("tmp/greeting") == "hello\n"
        own = json.loads(shown("run/pxeserver/own/metadata.json"))
        assert (own["name"], own["boot"]) == ("web7", record.id)
        url = shown("run/pxeserver/own/url").strip()
        # another host with the machine's own token, after it is up
        code = "import sys, urllib.request as r; r.urlopen(sys.argv[1])"
        argv = site.lab.argv("lan", [sys.executable, "-c", code, f"{url}/config.cpio"])
        assert "HTTP Error 404" in subprocess.run(argv, capture_output=True, text=True, check=False).stderr
        events = site.fleet.events(boot=record.id, limit=1000)
        assert [e.text.split(",")[0] for e in events if e.data.get("what") == "config"] == ["config.cpio"]
