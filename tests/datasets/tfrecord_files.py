"""TFRecord files written by their definition: length, its checksum, content, its checksum; for tests."""

import struct
from collections.abc import Iterable
from pathlib import Path

POLYNOMIAL = 0x82F63B78  # Castagnoli's, reflected


def crc32c(data: bytes) -> int:
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ POLYNOMIAL * (value & 1)
    return value ^ 0xFFFFFFFF


def masked(data: bytes) -> bytes:
    value = crc32c(data)
    return struct.pack("<I", ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def write_records(file: Path, records: Iterable[bytes]) -> Path:
    lengths = ((struct.pack("<Q", len(record)), record) for record in records)
    file.write_bytes(b"".join(length + masked(length) + record + masked(record) for length, record in lengths))
    return file
