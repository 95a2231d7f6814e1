"""LinuxKit's compressor, byte for byte: digests of what klauspost/pgzip 1.2.6 over klauspost/compress 1.20.3 made."""

from __future__ import annotations

import gzip
import hashlib
import io
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pxeserver.errors import PxeServerError
from pxeserver.images import pgzip
from pxeserver.images.cpio import CpioWriter
from pxeserver.images.entry import FILE, Entry
from pxeserver.images.pgzip import onearchive


def noise(size: int, seed: int) -> bytes:
    out, i = bytearray(), 0
    while len(out) < size:
        out += hashlib.sha256(b"%d %d" % (seed, i)).digest()
        i += 1
    return bytes(out[:size])


def words(size: int, seed: int) -> bytes:
    vocabulary = [noise(3 + i % 9, 1000 + i).hex().encode() for i in range(200)]
    return b" ".join(vocabulary[p % 200] for p in noise(size // 7 + 1, seed))[:size]  # a word and its blank: 7 or more


def skewed(size: int, seed: int) -> bytes:
    return noise(size, seed).translate(bytes(b & (b >> 3) & 0x1F for b in range(256)))


# name -> (what makes the data, size and SHA-256 of its gzip stream)
CASES: dict[str, tuple[Callable[[], bytes], int, str]] = {
    "empty": (lambda: b"", 25, "56061a2727129d03575feb70ff7d610c6b1fdc7d35159ec124ab237823ee68bd"),
    "one": (lambda: b"x", 31, "374f6f002682e1ec72b383af0e062615d57ca523b2dc6e6dc870c67182100706"),
    "tiny": (lambda: noise(20, 1), 50, "b9981a9009bdad3733b118e39f383a39301800eb38a95b1363ef1c78de73c704"),
    "small-noise": (lambda: noise(100, 2), 130, "470a56e5a1cc0fc35ec6e64b9594ccbf84009b05e90195568c57d4ac69911b05"),
    "small-text": (lambda: words(100, 3), 130, "f93b48257ae731a8301406e9bb52e9bbd4ac497a6a5eb1e9c3ba75c78811d63f"),
    "fixed": (lambda: words(200, 33), 230, "92906609703cbbab923926dd76c7d82b48abf3f258f386f44ec1da49d7000abf"),
    "hundreds": (lambda: words(700, 34), 385, "d1cd6cd1a57ecb810713f5e27f086040c2ed8f39fec99d0f3489b82d5b6e406a"),
    "zeros": (lambda: bytes(300000), 365, "d5ca027372517ad6ca216dd9b7aecd594c7c718d8a4645b9ee13463c084e5849"),
    "text": (lambda: words(400000, 4), 60025, "e805ca9a2f57a71c7ab8ae45004338c2383bb11379db940bd821a28612e9b157"),
    "noise": (lambda: noise(200000, 5), 200045, "97be3bc0e5c2248ff195b2b225db1b4e3e887641760636f37f019ccddb87060a"),
    "skewed": (lambda: skewed(250000, 6), 139637, "bd18ea08e43945554786df9f95ba76f53e2015981346f3b4635abbf2cb0e7885"),
    "window": (lambda: words(65535, 7), 11463, "a2f14337c027bc3b8705d5534aa1d71fa5421fe8081c88478e5b91c1243cac02"),
    "window+1": (lambda: words(65536, 8), 11435, "51282bc1fb83fa99eb84e41e47992497e6b9577583e5eef15b7aefa9d7ffd4d1"),
    "block+tail": (
        lambda: words((1 << 20) + 40, 10),
        155065,
        "13ac21ccab141e3ca703bea2edf463ccca822f5bf8cb2b59e98e8e524140e802",
    ),
    "mixed": (
        lambda: b"".join(f(30000 + 997 * i, 20 + i) for i, f in enumerate([words, noise, skewed] * 13)),
        1243017,
        "f1151d97d22c327fd935d12910177e524f1c0a811cb637135ca266f33a81ae6b",
    ),
    "short-repeats": (
        lambda: b"".join(noise(5 + i % 40, 50 + i % 7) + noise(3, 900 + i) for i in range(9000)),
        55323,
        "e5409a2e991e930aba3f9e026bac67d5c850bd18b01e79c61b93a417eabd76e4",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_stream_is_the_reference_compressors(name: str) -> None:
    make, size, digest = CASES[name]
    data = make()
    made = b"".join(pgzip.compress([data]))
    assert (len(made), hashlib.sha256(made).hexdigest()) == (size, digest)
    assert gzip.decompress(made) == data


@given(st.lists(st.binary(max_size=3000), max_size=4), st.integers(1, 40))
def test_any_data_comes_back_however_it_is_cut(pieces: list[bytes], times: int) -> None:
    data = b"".join(pieces) * times
    made = b"".join(pgzip.compress([data]))
    assert gzip.decompress(made) == data
    assert b"".join(pgzip.compress(data[i : i + 777] for i in range(0, len(data), 777))) == made


def archive(names: list[str]) -> bytes:
    out = io.BytesIO()
    writer = CpioWriter(out)
    for name in names:
        writer.add(Entry(name, FILE, 0o644, size=len(name), open=lambda name=name: io.BytesIO(name.encode())))
    writer.finish()
    return out.getvalue()


def test_archives_in_a_row_become_one() -> None:
    one = archive(["a", "bb", "ccc", "dddd"])
    want = one + b"\0" * (-len(one) % 512)
    assert b"".join(onearchive.joined(io.BytesIO(archive(["a", "bb"]) + archive(["ccc", "dddd"])))) == want


@pytest.mark.parametrize("cut", [50, 115, 130])
def test_a_broken_archive_is_said_to_be_one(cut: int) -> None:
    with pytest.raises(PxeServerError, match="initrd"):
        list(onearchive.joined(io.BytesIO(archive(["a" * 20])[:cut])))
