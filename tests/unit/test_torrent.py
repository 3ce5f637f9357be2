# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""BitTorrent's documents, byte for byte, and that the real aria2 reads them."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest
from ansible_collections.dgx.spark.plugins.module_utils._torrent import SMALL, Described, Value, announced, bencode, piece_length


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, b"i0e"),
        (-3, b"i-3e"),
        ("spam", b"4:spam"),
        ("ä", b"2:\xc3\xa4"),
        (b"\x00\xff", b"2:\x00\xff"),
        ([1, "a", [b""]], b"li1e1:al0:ee"),
        ({"b": 1, "a": {"z": []}}, b"d1:ad1:zlee1:bi1ee"),
    ],
)
def test_values_are_encoded_as_bep_3_says(value: Value, text: bytes) -> None:
    assert bencode(value) == text


def test_a_torrent_has_few_pieces_and_each_is_a_power_of_two() -> None:
    for size in (1, SMALL, 500_000_000, 5_000_000_000, 50_000_000_000):
        piece = piece_length(size)
        assert piece & (piece - 1) == 0
        assert 2**20 <= piece <= 2**24
    assert 5_000_000_000 / piece_length(5_000_000_000) < 1500


def test_aria2_reads_what_a_torrent_says(tmp_path: Path) -> None:
    content = b"x" * (SMALL + 5)
    pieces = b"".join(hashlib.sha1(content[at : at + 2**20]).digest() for at in range(0, len(content), 2**20))
    described = Described("a" * 64, len(content), pieces, "word")
    (tmp_path / "t.torrent").write_bytes(described.torrent("http://10.0.0.1:6881/s/announce", "http://10.0.0.1:6881/s/" + "a" * 64))
    shown = subprocess.run(["aria2c", "-S", str(tmp_path / "t.torrent")], capture_output=True, text=True, check=True).stdout
    assert f"Info Hash: {described.info_hash.hex()}" in shown
    assert b"7:privatei1e" in (tmp_path / "t.torrent").read_bytes()
    assert "Piece Length: 1.0MiB\nThe Number of Pieces: 5" in shown
    assert "Announce:\n http://10.0.0.1:6881/s/announce" in shown
    assert f"URL List:\n http://10.0.0.1:6881/s/{'a' * 64}\nName: {'a' * 64}" in shown


def test_nobody_can_tell_the_hash_from_the_file() -> None:
    one, other = (Described("name", 1, b"0" * 20, word) for word in ("one", "other"))
    assert one.info_hash != other.info_hash


def test_a_tracker_answers_with_six_bytes_a_peer() -> None:
    assert announced([("10.0.0.1", 6881), ("1.2.3.4", 80)], 10) == (
        b"d8:intervali10e12:min intervali10e5:peers12:\x0a\x00\x00\x01\x1a\xe1\x01\x02\x03\x04\x00\x50e"
    )
