"""What a machine gets of its own, and what its variables may not ask for."""

from __future__ import annotations

import json

import pytest

from pxeserver.boot import personal
from pxeserver.boot.personal import File
from pxeserver.errors import Refused
from pxeserver.model import Machine

MAC = "52:54:00:00:00:01"


def machine(name: str = "web1", **variables: str) -> Machine:
    return Machine(1, name, (MAC,), vars=variables)


def test_only_who_has_something_of_its_own_gets_files() -> None:
    assert not personal.wanted(None) and not personal.wanted(machine(""))
    assert personal.wanted(machine()) and personal.wanted(machine("", userdata="x"))


def test_the_files_in_order() -> None:
    files = {"/usr/local/bin/x": {"content": "#!/bin/sh\n", "mode": "0755"}, "/etc/motd": "hi\n"}
    found = personal.files(machine(files=json.dumps(files)), b"{}", "http://10.0.0.1:8080/boot/T")
    assert found == (
        File("etc/hostname", b"web1\n", 0o644),
        File("etc/motd", b"hi\n", 0o644),
        File("etc/pxeserver/metadata.json", b"{}", 0o600),
        File("etc/pxeserver/url", b"http://10.0.0.1:8080/boot/T\n", 0o600),
        File("usr/local/bin/x", b"#!/bin/sh\n", 0o755),
    )


@pytest.mark.parametrize(
    ("found", "name"),
    [
        (machine("Web1"), "Web1"),
        (machine("a_b"), "a-b"),
        (machine("web1", hostname="db.rack.test"), "db.rack.test"),
        (machine("web1", hostname="no way"), ""),
        (machine(""), ""),
    ],
)
def test_host_names(found: Machine, name: str) -> None:
    assert personal.hostname(found) == name
    assert ("etc/hostname" in {file.path for file in personal.files(found, b"", "")}) is bool(name)


def test_metadata_is_what_the_machine_may_know() -> None:
    body = json.loads(personal.metadata(machine(rack="7"), MAC, "ab" * 8, None))
    assert body == {
        "boot": "ab" * 8, "mac": MAC, "name": "web1", "macs": [MAC], "labels": {}, "vars": {"rack": "7"},
        "spec": "", "image": "",
    }  # fmt: skip
    assert json.loads(personal.metadata(None, MAC, "x", None))["vars"] == {}


def test_keys() -> None:
    assert personal.authorized_keys(machine(ssh_keys="a b,c d\n\n e")) == "a b\nc d\ne\n"
    assert personal.authorized_keys(machine()) == ""


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ("{", "no JSON"),
        ("[]", "map of paths"),
        ('{"etc/x": ""}', "etc/x is no absolute path"),
        ('{"/etc/../x": ""}', "absolute"),
        ('{"/": ""}', "absolute"),
        ('{"/etc/": ""}', None),
        ('{"/run/x": ""}', "mounts /run"),
        ('{"/var/lib/x": ""}', "mounts /var"),
        ('{"/etc/hostname": ""}', "by the server itself"),
        ('{"/.pxeserver/end": ""}', "by the server itself"),
        ('{"/x": 5}', "must be text"),
        ('{"/x": {"content": "", "mode": "0999"}}', "octal"),
        ('{"/x": {"content": "", "mode": 755}}', "octal"),
        ('{"/x": {"content": "", "owner": "me"}}', "other than content and mode"),
    ],
)
def test_files_that_cannot_be(files: str, words: str | None) -> None:
    if words is None:
        personal.check(machine(files=files))
        return
    with pytest.raises(Refused) as caught:
        personal.check(machine(files=files))
    assert caught.value.slug == "personal-files" and words in str(caught.value) and "web1" in str(caught.value)


def test_too_much() -> None:
    large = json.dumps({f"/x{n}": "x" * (1 << 20) for n in range(5)})
    with pytest.raises(Refused) as caught:
        personal.check(machine(files=large))
    assert caught.value.slug == "personal-too-large"
    personal.check(None)
