"""The configuration: defaults, precedence, faults with their place."""

from __future__ import annotations

from pathlib import Path

import pytest

from pxeserver import config, yamlpos
from pxeserver.checked import plain
from pxeserver.errors import NotFound, UsageError
from pxeserver.resources import shipped


def test_the_shipped_file_lists_every_key_with_its_default() -> None:
    text = (shipped("config") / "pxeserver.yaml").read_bytes()
    shown = yamlpos.flatten(yamlpos.parse(text).data)
    real = yamlpos.flatten(plain(config.Config()))
    assert shown == real


def test_precedence_is_flag_environment_file_default(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("http: {port: 1}\ntftp: {port: 1}\nadmin: {token: file}\n")
    loaded = config.load(
        file,
        flags={"http.port": 3, "tftp.port": None},
        environ={"PXESERVER_HTTP_PORT": "2", "PXESERVER_TFTP_PORT": "2", "PXESERVER_SERVER_INTERFACES": "[eth1, eth2]"},
    )
    assert (loaded.http.port, loaded.tftp.port, loaded.admin.token, loaded.dhcp.port) == (3, 2, "file", 67)
    assert loaded.server.interfaces == ("eth1", "eth2")


@pytest.mark.parametrize(
    ("text", "slug", "place", "words"),
    [
        ("dhcp:\n  unknow: wait\n", "config-unknown-key", "c.yaml:2:3: dhcp.unknow", 'did you mean "unknown"'),
        ("tftp:\n  port: ten\n", "config-type", "c.yaml:2:9: tftp.port", "whole number"),
        ("tftp:\n  port: 70000\n", "config-value", "c.yaml:2:9: tftp.port", "65535"),
        ("server:\n  advertise: here\n", "config-value", "c.yaml:2:14: server.advertise", "here"),
        ("admin:\n  listen: localhost\n", "config-value", "c.yaml:2:11: admin.listen", "listen"),
        ("- a\n", "config-type", "c.yaml:1:1", "map of sections"),
        ("http: 8080\n", "config-type", "c.yaml:1:7: http", "must be a map"),
        ("a: 'b\n", "yaml-syntax", "c.yaml:", "not YAML"),
    ],
)
def test_a_fault_names_its_place(tmp_path: Path, text: str, slug: str, place: str, words: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(UsageError) as caught:
        config.load(file, environ={})
    assert caught.value.slug == slug
    assert place in str(caught.value) and words in str(caught.value)


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        config.load(tmp_path / "none.yaml", environ={})


def test_an_environment_value_of_the_wrong_type_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        config.load(None, environ={"PXESERVER_HTTP_PORT": "many"})
    assert "http.port" in str(caught.value)
