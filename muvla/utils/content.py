"""Formats and placeholders, recognised by a file's first bytes: a name says nothing about the content.

Readers call `require_real` before they parse a file. A clone without Git LFS, or a saved web page, is then named with
the command that helps, and never called damaged.
"""

from __future__ import annotations

import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

from muvla.errors import MuvlaError

HEAD = 1024  # bytes that tell every format apart
POINTER = b"version https://git-lfs.github.com/spec/"
ANNEX = b"/annex/objects/"
PAGES = (b"<!doctype html", b"<html")
MAGIC = {
    b"GGUF": "GGUF, a format of llama.cpp",
    b"\x89HDF\r\n\x1a\n": "HDF5",
    b"PAR1": "Parquet",
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "Zstandard",
    b"\xfd7zXZ\x00": "xz",
    b"\x93NUMPY": "a NumPy array",
    b"\x80\x02": "a pickle",
    b"\x80\x03": "a pickle",
    b"\x80\x04": "a pickle",
    b"\x80\x05": "a pickle",
}


@dataclass(frozen=True)
class Placeholder:
    """A file that stands for another file, and the command that fetches the real content."""

    description: str
    remedy: str


def find_placeholder(path: Path) -> Placeholder | None:
    """Returns the placeholder that the file is; None for any other content, and for a file that cannot be read."""
    head = _read_head(path)
    if head.startswith(POINTER):
        size = re.search(rb"^size (\d+)$", head, re.MULTILINE)
        stands_for = f" for a file of {int(size[1]):,} bytes" if size and len(size[1]) < 20 else ""
        return Placeholder(
            f"a Git LFS pointer{stands_for}",
            "run `git lfs install` and `git lfs pull` in the clone, or fetch the repository with `hf download`",
        )
    if head.lstrip()[: len(ANNEX)] == ANNEX or head.startswith(b"../.git/annex"):
        return Placeholder("a git-annex pointer", "run `git annex get .` in the clone")
    if head.lstrip().lower().startswith(PAGES):
        return Placeholder(
            "a web page",
            "fetch the file with `hf download`, or from the page's download link: the page itself was saved",
        )
    return None


def require_real(path: Path, expected: str = "the file's content") -> None:
    """Raises MuvlaError, with the command that helps, if the file is a placeholder (`find_placeholder`)."""
    placeholder = find_placeholder(path)
    if placeholder is not None:
        raise MuvlaError(str(path), got=placeholder.description, expected=expected, remedy=placeholder.remedy)


def describe_format(path: Path) -> str | None:
    """Returns the format's name by the content; None for a format that this function does not recognise."""
    head = _read_head(path)
    if placeholder := find_placeholder(path):
        return placeholder.description
    if not head:
        return "an empty file" if path.is_file() else None
    for magic, name in MAGIC.items():
        if head.startswith(magic):
            return name
    if head[4:8] == b"ftyp":
        return "MP4"
    if head[257:262] == b"ustar":
        return "tar"
    if head.startswith(b"PK\x03\x04"):
        return _describe_archive(path)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**32:
        return "safetensors"
    if path.suffix == ".onnx" or (head[:1] == b"\x08" and (b"pytorch" in head or b"onnx" in head.lower())):
        return "ONNX"
    return None


def _describe_archive(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, ValueError, zipfile.BadZipFile):
        return "a cut zip archive"
    if any(name.endswith("data.pkl") for name in names):
        return "a file of torch.save"
    return "npz" if names and all(name.endswith(".npy") for name in names) else "zip"


def _read_head(path: Path) -> bytes:
    try:
        with path.open("rb") as handle:
            return handle.read(HEAD)
    except OSError:
        return b""
