"""A seeded mutator: bytes, JSON, JSON lines, texts, and files of arrays, tables, tensors and records.

Every function takes a `random.Random`, so that a case is repeated by its seed.
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from pathlib import Path
from random import Random
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from helpers.rlds_files import field, record, varint

NUMBERS = (
    0,
    -1,
    1,
    2,
    7,
    255,
    2**31,
    2**63,
    2**64,
    10**30,
    0.5,
    -0.0,
    1e308,
    float("nan"),
    float("inf"),
    -float("inf"),
)
TEXTS = (
    "",
    " ",
    "x",
    "1",
    "no",
    "../x",
    "/etc/hostname",
    "a/b",
    "a**",
    "[a]",
    "a\0b",
    "\ud800",
    "ä" * 200,
    "x" * 300,
    "x" * 5000,
    "{0}",
    "{unknown}",
    "{chunk_index:1000000000}",
    "%s%n",
    "NaN",
    "update-000002\n",
    "float8_e4m3fn",
    "object",
    "__class__",
)


def value(rng: Random) -> Any:
    """A value of any type of JSON, seldom a sensible one."""
    choice = rng.randrange(8)
    if choice < 3:
        return rng.choice(NUMBERS)
    if choice < 5:
        return rng.choice(TEXTS)
    if choice == 5:
        return rng.choice((None, True, False))
    if choice == 6:
        return [value(rng) for _ in range(rng.randrange(3))]
    return {rng.choice(("a", "", "name", "shape", "kind")): value(rng) for _ in range(rng.randrange(3))}


def change_json(rng: Random, data: Any) -> Any:
    """The data with one node replaced, removed, renamed, repeated or wrapped."""
    nodes: list[tuple[Any, Any]] = []

    def collect(node: Any) -> None:
        items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, child in items:
            nodes.append((node, key))
            collect(child)

    collect(data)
    if not nodes or rng.random() < 0.02:
        return value(rng)
    parent, key = rng.choice(nodes)
    action = rng.randrange(10)
    if action < 6:
        parent[key] = value(rng)
    elif action == 6:
        del parent[key]
    elif action == 7:
        parent[key] = [parent[key]] if rng.random() < 0.5 else {"x": parent[key]}
    elif action == 8 and isinstance(parent, dict):
        parent[rng.choice(TEXTS)] = parent.pop(key) if rng.random() < 0.7 else value(rng)
    else:
        for _ in range(rng.choice((20, 70, 400))):
            parent[key] = [parent[key]]
    return data


def mutate_json(rng: Random, content: bytes) -> bytes:
    """Broken text in one case of five, else a changed node, or two."""
    if rng.random() < 0.2:
        return mutate_text(rng, content)
    data = json.loads(content)
    for _ in range(rng.choice((1, 1, 2))):
        data = change_json(rng, data)
    return json.dumps(data).encode()


def mutate_lines(rng: Random, content: bytes) -> bytes:
    """JSON lines with one line changed, repeated, removed or broken."""
    lines = content.splitlines(keepends=True)
    index = rng.randrange(len(lines))
    action = rng.randrange(10)
    if action == 0:
        del lines[index]
    elif action == 1:
        lines.append(lines[index])
    else:
        lines[index] = mutate_json(rng, lines[index]) + b"\n"
    return b"".join(lines)


def mutate_text(rng: Random, content: bytes) -> bytes:
    """Text that is cut, of another encoding, deeply nested, or has thousands of digits."""
    action = rng.randrange(8)
    if action == 0:
        return content[: rng.randrange(len(content) + 1)]
    if action == 1:
        return content.decode(errors="replace").encode("utf-16")
    if action == 2:
        return b"[" * 100_000 + content
    if action == 3:
        place = rng.randrange(len(content) + 1)
        return content[:place] + b"9" * 5000 + content[place:]
    if action == 4:
        return rng.choice(TEXTS).encode(errors="surrogatepass")
    if action == 5:
        return b"\xef\xbb\xbf" + content
    if action == 6:
        return b'{"a":' * 300 + b"1" + b"}" * 300
    return mutate_bytes(rng, content)


def mutate_bytes(rng: Random, content: bytes) -> bytes:
    """Bytes flipped, cut, inserted, zeroed, or swapped; most changes lie in the first and the last kilobyte."""
    data = bytearray(content)
    if not data:
        return rng.randbytes(rng.randrange(64))
    for _ in range(rng.choice((1, 1, 2, 8))):
        if not data:
            break
        ends = rng.choice(
            (rng.randrange(len(data)), rng.randrange(min(len(data), 1024)), -rng.randrange(1, min(len(data), 1024) + 1))
        )
        place = ends % len(data)
        action = rng.randrange(7)
        if action == 0:
            data[place] ^= 1 << rng.randrange(8)
        elif action == 1:
            data[place] = rng.randrange(256)
        elif action == 2:
            del data[place:]
        elif action == 3:
            data[place:place] = rng.randbytes(rng.choice((1, 4, 64)))
        elif action == 4:
            size = rng.choice((4, 8, 64))
            data[place : place + size] = bytes(len(data[place : place + size]))
        elif action == 5:
            size = rng.choice((1, 4, 8))
            data[place : place + size] = b"\xff" * len(data[place : place + size])
        else:
            other = rng.randrange(len(data))
            data[place : place + 16], data[other : other + 16] = data[other : other + 16], data[place : place + 16]
    return bytes(data)


def mutate_words(rng: Random, text: str) -> str:
    """A word with characters changed, or another word."""
    letters = list(text)
    for _ in range(rng.choice((1, 1, 2, 4))):
        place = rng.randrange(len(letters) + 1)
        action = rng.randrange(5)
        if action == 0 and letters:
            del letters[place - 1]
        elif action == 1:
            letters[place:place] = rng.choice(
                (
                    "(",
                    ")",
                    "[",
                    "]",
                    ":",
                    "@",
                    "..",
                    "/",
                    "=",
                    ",",
                    "-",
                    "9" * 400,
                    "\0",
                    "\ud800",
                    "nan",
                    "1e999",
                    "é",
                    "²",
                    "٣",
                )
            )
        elif action == 2:
            letters[place:place] = rng.choice(TEXTS)
        elif action == 3:
            letters = letters[: len(letters) // 2] + letters
        elif letters:
            letters[place - 1] = chr(rng.randrange(32, 0x2FF))
    return "".join(letters)


def png_bomb(rng: Random) -> bytes:
    """A PNG of some hundred bytes whose header claims up to a thousand million pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    side = rng.choice((9_000, 14_000, 32_000, 2**31 - 1))
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(999))) + chunk(b"IEND", b"")
    )


# --- arrays ---------------------------------------------------------------------------------------------------------


def change_array(rng: Random, array: np.ndarray) -> np.ndarray:
    """Another dtype, shape, length, or numbers that are not finite."""
    action = rng.randrange(8)
    if action == 0:
        return (
            array.astype(rng.choice(("f8", "i8", "?", "U8", "S4", "c8", "f2", "u1")))
            if array.dtype.kind in "biuf"
            else np.array(3)
        )
    if action == 1:
        return array[:-1] if array.ndim and len(array) else np.zeros((2, 2))
    if action == 2:
        return array.reshape(-1)
    if action == 3:
        return array[None]
    if action == 4:
        return np.array(rng.choice((0, -1, 2**62, 1.5, float("nan"), "", "x")))
    if action == 5 and array.dtype.kind == "f" and array.size:
        array = array.copy()
        array.flat[rng.randrange(array.size)] = rng.choice((float("nan"), float("inf"), 1e308))
        return array
    if action == 6:
        return np.empty((0, *array.shape[1:]), array.dtype)
    return (
        np.datetime64("2020-01-01")
        if rng.random() < 0.3
        else np.swapaxes(array, 0, -1)
        if array.ndim > 1
        else array[..., None]
    )


def mutate_npz(rng: Random, content: bytes) -> bytes:
    """An archive with one array changed, missing, or with a header that claims gigabytes."""
    if rng.random() < 0.3:
        return mutate_bytes(rng, content)
    with np.load(io.BytesIO(content)) as archive:
        arrays = {name: archive[name] for name in archive.files}
    name = rng.choice(list(arrays))
    action = rng.randrange(6)
    if action == 0:
        del arrays[name]
    elif action == 1:
        arrays[rng.choice(("x", "rgb ", "a/b"))] = arrays.pop(name)
    elif action < 5:
        arrays[name] = change_array(rng, arrays[name])
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for each, array in arrays.items():
            member = io.BytesIO()
            if each == name and action == 5:
                shape = rng.choice(((7 * 2**30,), (-1,), (2**62, 2**62), (), (3, 0)))
                header = {"descr": rng.choice(("<f4", "|O", "<U9", "|V9")), "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(member, header)
                member.write(bytes(rng.choice((0, 64, 2**20))))
            else:
                np.lib.format.write_array(member, np.asarray(array))
            archive.writestr(f"{each}.npy", member.getvalue())
    return file.getvalue()


def mutate_hdf5(rng: Random, content: bytes) -> bytes:
    """A file with one node changed, missing, a link, outside, of text, or of a size that it does not hold."""
    if rng.random() < 0.3:
        return mutate_bytes(rng, content)
    file = io.BytesIO(content)
    with h5py.File(file, "r+") as opened:
        paths: list[str] = []
        opened.visit(paths.append)
        path = rng.choice(paths)
        node = opened[path]
        old = node[()] if isinstance(node, h5py.Dataset) else None
        del opened[path]
        action = rng.randrange(11)
        if action == 0:
            opened[path] = h5py.SoftLink(rng.choice(("/absent", "/", f"/{path}")))
        elif action == 1:
            opened[path] = h5py.ExternalLink("/etc/hostname", "/x")
        elif action == 2:
            opened.create_dataset(path, (4,), "f4", external=[("/etc/hostname", 0, 16)])
        elif action == 3:
            opened.create_dataset(path, (2**33, *np.shape(old)[1:]), "f4", chunks=(1024, *np.shape(old)[1:]))
        elif action == 4:
            opened[path] = rng.choice(("text", b"\xff\xfe", "x" * 5000))
        elif action == 5:
            opened.create_group(path)
        elif action == 6:
            opened[path] = h5py.Empty("f4")
        elif action == 7:
            opened.create_dataset(path, (64, 1024, 1024), "u1", chunks=(1, 1024, 1024), compression="gzip", fillvalue=0)
        elif action < 10 and old is not None:
            changed = change_array(rng, np.asarray(old))
            opened[path] = changed.astype("S") if changed.dtype.kind in "UM" else changed
        for key in list(opened.attrs)[:3]:
            if rng.random() < 0.2:
                opened.attrs[key] = rng.choice((1, "x", "", b"\xff", [1.0]))
    return file.getvalue()


def mutate_parquet(rng: Random, content: bytes) -> bytes:
    """A table with one column changed, missing, renamed, of another type, or with empty cells."""
    if rng.random() < 0.3:
        return mutate_bytes(rng, content)
    table = pq.read_table(io.BytesIO(content))
    if not table.num_columns:
        return mutate_bytes(rng, content)
    index = rng.randrange(table.num_columns)
    name, cells = table.column_names[index], table.column(index).to_pylist()
    action = rng.randrange(9)
    if action == 0:
        changed = table.remove_column(index)
    elif action == 1:
        names = list(table.column_names)
        names[index] = rng.choice(("x", table.column_names[0], ""))
        changed = table.rename_columns(names)
    elif action == 2:
        changed = table.slice(0, rng.randrange(table.num_rows + 1))
    elif action == 3:
        changed = pa.concat_tables([table, table.slice(0, 1)])
    else:
        if action == 4:
            cells = [rng.choice((None, cell)) for cell in cells]
        elif action == 5:
            same = rng.choice(
                (
                    None,
                    1.5,
                    float("nan"),
                    -1,
                    2**62,
                    "x",
                    "../x",
                    [1.0],
                    [["a"]],
                    {"bytes": b"x", "path": "../x"},
                    True,
                    b"\xff",
                )
            )
            cells = [same] * len(cells)
        elif action == 6:
            cells = [str(cell) for cell in cells]
        elif action == 7:
            cells = [{"bytes": png_bomb(rng), "path": None} for _ in cells]
        else:
            rng.shuffle(cells)
        try:
            column = pa.array(cells)
        except (pa.ArrowException, ValueError, TypeError, OverflowError):
            column = pa.array([repr(cell)[:20] for cell in cells])
        changed = table.set_column(index, name, column)
    file = io.BytesIO()
    pq.write_table(changed, file)
    return file.getvalue()


def mutate_safetensors(rng: Random, content: bytes) -> bytes:
    """A file with a changed header, or changed bytes."""
    if rng.random() < 0.3:
        return mutate_bytes(rng, content)
    (size,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + size])
    names = [name for name in header if name != "__metadata__"]
    action = rng.randrange(6)
    if action == 0:
        header[rng.choice(names)]["dtype"] = rng.choice(
            ("F64", "I64", "BOOL", "F8_E4M3", "U8", "X", "BF16", "F16", "C64")
        )
    elif action == 1:
        header[rng.choice(names)]["shape"] = rng.choice(([], [0], [2**62], [-1], [2**33, 2**33], [1, 1, 1]))
    elif action == 2:
        header["renamed"] = header.pop(rng.choice(names))
    elif action == 3:
        header[rng.choice(names)]["data_offsets"] = rng.choice(([0, 0], [2**63, 2**63], [8, 4], [0, 2**40]))
    elif action == 4:
        numbers = bytearray(content)
        for _ in range(4):
            place = rng.randrange(8 + size, len(numbers))
            numbers[place : place + 4] = b"\xff" * len(numbers[place : place + 4])
        return bytes(numbers)
    else:
        header = change_json(rng, header)
    text = json.dumps(header).encode(errors="replace")
    return (
        struct.pack("<Q", rng.choice((len(text), len(text), 2**40)) if action == 5 else len(text))
        + text
        + content[8 + size :]
    )


def mutate_records(rng: Random, content: bytes) -> bytes:
    """A TFRecord file with a changed Example of right CRCs, or changed bytes."""
    if rng.random() < 0.3:
        return mutate_bytes(rng, content)
    (length,) = struct.unpack("<Q", content[:8])
    data, rest = content[12 : 12 + length], content[16 + length :]
    action = rng.randrange(5)
    if action == 0:
        data = mutate_bytes(rng, data)
    elif action == 1:
        data = data + b"\xff" * rng.choice((3, 20, 200_000))
    elif action == 2:
        data = field(
            1,
            field(
                1,
                field(1, b"steps/action")
                + field(2, rng.choice((field(2, varint(1 << 3) + varint(7)), b"", field(3, b"\xff")))),
            ),
        )
    elif action == 3:
        data = data + field(1, field(1, field(1, b"\xff\xfe") + field(2, b"")))
    else:
        data = data + data[: rng.randrange(len(data))]
    return record(data) + rest


BY_ENDING = {
    ".json": mutate_json,
    ".jsonl": mutate_lines,
    ".npz": mutate_npz,
    ".h5": mutate_hdf5,
    ".hdf5": mutate_hdf5,
    ".parquet": mutate_parquet,
    ".safetensors": mutate_safetensors,
}


def mutate_file(rng: Random, file: Path, content: bytes) -> bytes:
    """The content of a file, mutated as its ending or its name asks."""
    if "tfrecord" in file.name:
        return mutate_records(rng, content)
    mutate = BY_ENDING.get(file.suffix, mutate_bytes)
    if rng.random() < 0.05:
        return rng.choice(
            (b"", b"\0" * 100, b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", rng.randbytes(50))
        )
    return mutate(rng, content)
