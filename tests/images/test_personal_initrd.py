"""A machine's own initrd: newc cpio as the kernel and busybox read it, the same bytes for the same files."""

from __future__ import annotations

import gzip
import hashlib
import subprocess
from pathlib import Path

import pytest

from pxeserver.boot.personal import File
from pxeserver.images.personal import initrd

FILES = (
    File("etc/hostname", b"web1\n", 0o644),
    File("etc/pxeserver/url", b"http://10.0.0.1:8080/boot/T\n"),
    File("root/.ssh/authorized_keys", b"k\n"),
    File("usr/local/bin/x", b"#!/bin/sh\n", 0o755),
)


def test_the_same_bytes_whenever_it_is_made() -> None:
    raw = gzip.decompress(initrd(FILES))
    assert initrd(FILES) == initrd(iter(FILES)) and len(raw) % 512 == 0
    assert raw.startswith(b"070701") and raw.rstrip(b"\0").endswith(b"TRAILER!!!")
    assert hashlib.sha256(raw).hexdigest() == "1855a987bb56ee85c62c68e5ef7c4f1db4739729f715fcb91c8057329e354fa0"
    assert initrd(FILES)[4:8] == bytes(4)  # no time in it


@pytest.mark.server
def test_busybox_unpacks_it(tmp_path: Path) -> None:
    argv = ["busybox", "cpio", "-idm"]
    subprocess.run(argv, input=gzip.decompress(initrd(FILES)), cwd=tmp_path, check=True, capture_output=True)
    for file in FILES:
        found = tmp_path / file.path
        assert (found.read_bytes(), found.stat().st_mode & 0o7777) == (file.content, file.mode)
    assert (tmp_path / "root").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "etc").stat().st_mode & 0o777 == 0o755
