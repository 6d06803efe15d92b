"""The zip archive that a PyTorch file is, checked member by member, and the refusal of what is none."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from pathlib import Path

from yolov7_jax.errors import WeightsError

ADVICE = "expected a checkpoint written by torch.save"
_MAX_DIRECTORY = 4 * 2**20  # bytes: some 40 000 members
_LEGACY_MAGIC = bytes.fromhex("8a0a6cfc9c46f9206aa850192e")  # the pickled number that older PyTorch files open with


def damaged(what: str) -> WeightsError:
    """The refusal of a file that no program would write like this."""
    return WeightsError(f"is damaged ({what}); download it or copy it again")


def shown(value: object) -> str:
    """Text from a file made fit for a message: one line, short, ASCII."""
    return str(value)[:80].encode("unicode_escape").decode("ascii")


class Budget:
    """How much a file may ask for: what would go beyond is refused before it is made."""

    def __init__(self, limit: int, refusal: str) -> None:
        self.left = limit
        self.refusal = refusal

    def spend(self, amount: int) -> None:
        """Takes an amount away.

        Raises:
            WeightsError: there is not so much left.
        """
        self.left -= amount
        if self.left < 0:
            raise WeightsError(self.refusal)


class _Directory(io.FileIO):
    """A file in which zipfile looks for the list of members, and gets no more than such a list may take."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _MAX_DIRECTORY:
            raise zipfile.BadZipFile("the list of members is too long")
        return super().read(size)


class Archive:
    """A PyTorch zip: members are stored as they are, once each, under one root.

    Raises:
        WeightsError: the file is none, or is damaged.
    """

    def __init__(self, path: Path, file: io.BufferedReader) -> None:
        self.file = file
        self.size = file.seek(0, io.SEEK_END)
        file.seek(0)
        _refuse_other_formats(file.read(512), self.size)
        try:
            with _Directory(path) as directory, zipfile.ZipFile(directory) as archive:
                members = archive.infolist()
        except (zipfile.BadZipFile, OSError, ValueError, struct.error, NotImplementedError, OverflowError):
            raise damaged("its zip is cut short or overwritten") from None
        self.root = _root([member.orig_filename for member in members])
        self.members = _checked(members, self.size)
        order = self.read("byteorder") if f"{self.root}byteorder" in self.members else b"little"
        if order != b"little":
            raise WeightsError(
                f"has the byte order {shown(order.decode('latin-1'))}; save it again on a little-endian machine"
            )

    def read(self, name: str) -> bytes:
        """A member's content, checked against its checksum.

        Raises:
            WeightsError: there is no such member, or it is damaged.
        """
        member = self.members.get(self.root + name)
        if member is None:
            raise damaged(f"its member {shown(name)} is missing")
        self.file.seek(member.header_offset)
        header = self.file.read(30)
        if len(header) < 30 or header[:4] != b"PK\3\4":
            raise damaged(f"its member {shown(name)} is not where the zip says")
        self.file.seek(sum(struct.unpack("<HH", header[26:])), io.SEEK_CUR)
        content = self.file.read(member.file_size)
        unchecked = member.CRC == 0  # PyTorch can be told to leave the checksum out
        if len(content) != member.file_size or not (unchecked or zlib.crc32(content) == member.CRC):
            raise damaged(f"its member {shown(name)} has a wrong checksum or is cut short")
        return content


def _checked(members: list[zipfile.ZipInfo], size: int) -> dict[str, zipfile.ZipInfo]:
    """Members by name; together they are no larger than the file, as none is compressed or shares bytes."""
    end = 0
    for member in sorted(members, key=lambda member: member.header_offset):
        name = member.orig_filename
        if name.startswith("/") or not {"\\", ":", "\0"}.isdisjoint(name) or ".." in name.split("/"):
            raise WeightsError(f"has a member named {shown(name)} that leads out of the archive; {ADVICE}")
        stored = member.compress_type == zipfile.ZIP_STORED and member.compress_size == member.file_size
        if not stored or member.flag_bits & 1:
            raise WeightsError(f"has a compressed or encrypted member {shown(name)}; save it again with torch.save")
        if member.header_offset < end:
            raise damaged(f"its member {shown(name)} overlaps another")
        end = member.header_offset + 30 + len(name) + member.file_size
    if end > size:
        raise damaged("its last member is cut short")
    named = {member.orig_filename: member for member in members}
    if len(named) < len(members):
        raise damaged("two of its members have one name")
    return named


def _root(names: list[str]) -> str:
    if any(name.endswith("/constants.pkl") or "/code/" in name for name in names):
        raise WeightsError("is a TorchScript archive; save a state dict instead: torch.save(model.state_dict(), path)")
    roots = [name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(roots) != 1:
        raise WeightsError(f"is a zip with {len(roots)} members data.pkl instead of one; {ADVICE}")
    return roots[0]


def _refuse_other_formats(start: bytes, size: int) -> None:
    if start.startswith(b"PK\3\4"):
        return
    opening = start.lstrip().lower()
    if size == 0:
        raise WeightsError(f"is empty; {ADVICE}: download it or copy it again")
    if _LEGACY_MAGIC in start[:64]:
        raise WeightsError(
            "is in the format of PyTorch before 1.6; save it again with a newer one: torch.save(torch.load(path), path)"
        )
    if start[257:262] == b"ustar":
        raise WeightsError("is a tar archive, perhaps of the first PyTorch; save it again with a newer one")
    if opening.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise WeightsError("is a web page, so its download probably failed; download the file itself")
    if opening.startswith(b"version https://git-lfs"):
        raise WeightsError("is a Git LFS pointer, not the file itself; fetch it with git lfs pull")
    if len(start) > 9 and start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= size - 8:
        raise WeightsError("is a safetensors file; give it the ending .safetensors")
    if start.isascii() and not any(byte < 9 for byte in start):
        raise WeightsError(f"is a text file, perhaps of a failed download; {ADVICE}")
    raise WeightsError(f"is not a PyTorch file; {ADVICE}")
