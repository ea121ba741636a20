"""Mutated messages for each wire of a server, keyed by a seed."""

from __future__ import annotations

import random

import msgspec
import numpy as np

from helpers.serving import frame
from muvla.serving.codec import encode_message

STRANGE = (
    None,
    True,
    -1,
    2**63,
    2**64 - 1,
    1.5,
    float("nan"),
    float("inf"),
    "",
    "é" * 50,
    "a" * 5000,
    b"",
    b"\xff" * 40,
    [],
    {},
    [[]] * 30,
    {"a": {"b": {}}},
    {b"__ndarray__": True},
    {"__ndarray__": True, "data": b"", "dtype": "|O", "shape": [1]},
    {"__ndarray__": True, "data": b"\0" * 8, "dtype": "<f4", "shape": [-2]},
    {"__image__": True, "format": "png", "data": b"x"},
    {b"__ndarray__": True, b"data": b"\0" * 4, b"dtype": "V4", b"shape": [1]},
    msgspec.msgpack.Ext(5, b"pickle"),
    {b"__npgeneric__": True, b"data": "x", b"dtype": "<f4"},
    np.zeros(3, np.float64),
    np.full(3, np.nan, np.float32),
    np.zeros((8, 8, 3), np.float32),
    np.zeros((8, 8, 4), np.uint8),
    np.zeros((0, 8, 3), np.uint8),
    np.zeros(0, np.uint8),
)


def mutate_content(content: dict, rng: random.Random) -> dict:
    """A map with one entry that is strange, missing, renamed or too much."""
    content = dict(content)
    name = rng.choice(list(content))
    action = rng.randrange(5)
    if action == 0:
        del content[name]
    elif action == 1:
        content[rng.choice(["__proto__", "", 7, b"raw", "images"])] = content.pop(name)
    elif action == 2 and isinstance(content[name], dict) and content[name]:
        content[name] = mutate_content(content[name], rng)
    else:
        content[name] = rng.choice(STRANGE)
    return content


def mutate_bytes(message: bytes, rng: random.Random) -> bytes:
    """Bytes that are cut, flipped, repeated or lengthened."""
    data = bytearray(message)
    for _ in range(rng.randrange(1, 4)):
        action, at = rng.randrange(5), rng.randrange(max(1, len(data)))
        if action == 0:
            data = data[:at]
        elif action == 1 and data:
            data[at % len(data)] = rng.randrange(256)
        elif action == 2:
            data[at:at] = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 9)))
        elif action == 3:
            data[at:at] = data[at : at + rng.randrange(1, 64)]
        else:
            data = bytearray(b"\xdd\xff\xff\xff\xff\xc6\xff\xff\xff\xff"[: rng.randrange(1, 11)]) + data
    return bytes(data)


def vla_eval_message(rng: random.Random) -> bytes:
    observed = frame(rng.randrange(100))
    payloads = {
        "observation": {"images": {"a": observed.images[0]}, "state": observed.proprio, "task_description": "touch it"},
        "episode_start": {"task": {"seed": rng.randrange(5)}},
        "episode_end": {"metrics": {}},
        "hello": {"protocol_version": 1},
    }
    name = rng.choice(["observation"] * 5 + list(payloads))
    message = {"type": name, "payload": payloads[name], "seq": rng.randrange(1000), "timestamp": 0.0}
    return mutated(message, "vla-eval", rng)


def openpi_message(rng: random.Random) -> bytes:
    observed = frame(rng.randrange(100))
    content = {"observation/image": observed.images[0], "observation/state": observed.proprio, "prompt": "touch it"}
    return mutated(content | {"episode_start": rng.random() < 0.5, "episode_seed": 1, "step": 2}, "openpi", rng)


def mutated(content: dict, dialect: str, rng: random.Random) -> bytes:
    choice = rng.randrange(4)  # 0: as it is, 1: another content, 2: other bytes, 3: both
    if choice in (1, 3):
        content = mutate_content(content, rng)
    try:
        message = encode_message(content, dialect)
    except (TypeError, OverflowError, ValueError):
        message = encode_message({"type": "observation"}, dialect)
    return mutate_bytes(message, rng) if choice >= 2 else message


def form_body(rng: random.Random, picture: bytes) -> tuple[bytes, dict[str, str]]:
    """A multipart body and its headers, mutated."""
    parts = {"image": picture, "text": b"touch it", "episode_first_frame": b"True", "proprio": b"[0, 0, 0]"}
    strange = (
        b"",
        b"true",
        b"\xff\xfe",
        b"[1e999, 0, 0]",
        b"[NaN, 0, 0]",
        b"[[0]]",
        b"{",
        b"9" * 200,
        b"[" * 5000,
        b"\x89PNG",
    )
    action, name = rng.randrange(4), rng.choice(list(parts))
    if action == 0:
        del parts[name]
    elif action == 1:
        parts[name] = rng.choice(strange)
    elif action == 2:
        parts["image"] = mutate_bytes(picture, rng)
    lines = []
    for key, value in parts.items():
        file = '; filename="f.png"' if key == "image" else ""
        lines += [
            b'--x\r\nContent-Disposition: form-data; name="' + key.encode() + b'"' + file.encode() + b"\r\n\r\n",
            value,
            b"\r\n",
        ]
    body = b"".join([*lines, b"--x--\r\n"])
    if action == 3:
        body = mutate_bytes(body, rng)
    kinds = ["multipart/form-data; boundary=x"] * 6 + [
        "multipart/form-data",
        "application/json",
        "multipart/form-data; boundary=y",
    ]
    headers = {"Content-Type": rng.choice(kinds), "X-Muvla-Session": f"fuzz {rng.randrange(3)}"}
    if rng.random() < 0.3:
        headers[rng.choice(["X-Muvla-Sequence", "X-Muvla-Seed", "X-Muvla-Step"])] = rng.choice(
            ["-1", "x", "9" * 30, "5"]
        )
    return body, headers
