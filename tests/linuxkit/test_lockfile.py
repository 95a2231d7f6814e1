"""The lock file: written and read back alike, faults with their place."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pxeserver.errors import UsageError
from pxeserver.linuxkit import lockfile
from pxeserver.linuxkit.loader import SpecSource

ONE, TWO = "sha256:" + "1" * 64, "sha256:" + "2" * 64

hosts = st.text("abz019.", min_size=1, max_size=9)
references = st.builds(
    "{}/{}{}".format,
    hosts | st.builds("{}:{}".format, hosts, st.integers(0, 99999)) | st.just("[::1]:5000"),
    st.text("abz019._/-", min_size=1, max_size=12),
    st.just("") | st.text("aZ09_.\u00e9", min_size=1, max_size=9).map(":{}".format),
)
digests = st.binary(min_size=32, max_size=32).map(lambda raw: f"sha256:{raw.hex()}")
pins = st.one_of(digests, st.dictionaries(st.sampled_from(["amd64", "arm64", "386"]), digests, min_size=1))


@given(st.dictionaries(references, pins))
def test_what_is_written_is_read_back(images: dict[str, lockfile.Pin]) -> None:
    text = lockfile.render("web.yml", images)
    assert lockfile.parse(text, "web.yml.lock").images == images
    assert lockfile.render("web.yml", dict(reversed(images.items()))) == text


def test_by_architecture() -> None:
    lock = lockfile.parse(lockfile.render("x", {"a": {"arm64": TWO, "amd64": ONE}, "b": ONE}), "")
    assert [lock.digest("a", arch) for arch in ("amd64", "arm64", "s390x")] == [ONE, TWO, ""]
    assert [lock.digest("b", arch) for arch in ("amd64", "arm64")] == [ONE, ONE]
    assert lock.digest("c", "amd64") == ""


@pytest.mark.parametrize(
    ("text", "slug", "where"),
    [
        ("", "spec-lock-type", "l"),
        ("[]", "spec-lock-type", "l:1:1"),
        ("version: 2\nimages: {}", "spec-lock-value", "l:1:10: version"),
        ("version: 1", "spec-lock-missing", "l:1:1: images"),
        ("version: 1\nimages: {}\nmore: 1", "spec-lock-unknown-key", "l:3:1: more"),
        ("version: 1\nimages: {a: sha512:00}", "spec-lock-value", "l:2:13: images.a"),
        (f"version: 1\nimages: {{a: {{amd64: {ONE}0}}}}", "spec-lock-value", "l:2:21: images.a.amd64"),
        ("version: 1\nimages: [a]", "spec-lock-type", "l:2:9: images"),
        ("version: 1\nimages: {", "yaml-syntax", "l:2:10"),
    ],
)
def test_faults(text: str, slug: str, where: str) -> None:
    with pytest.raises(UsageError) as caught:
        lockfile.parse(text.encode(), "l")
    assert (caught.value.slug, str(caught.value.where)) == (slug, where)


def test_beside_the_spec(tmp_path: Path) -> None:
    assert lockfile.path_of(SpecSource("sub/web.yml", "", tmp_path)) == tmp_path / "web.yml.lock"
    assert lockfile.path_of(SpecSource("-", "")) is None
