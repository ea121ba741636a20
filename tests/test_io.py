"""Writing and reading lines: full disks, strange texts, torn and broken lines."""

import errno
from pathlib import Path

import pytest

from helpers.errors import refused
from muvla.errors import DiskError
from muvla.utils.io import append_line, locked, read_lines, write_atomically


def test_any_text_comes_back(tmp_path):
    """Error messages hold anything: other kinds of line end, half of a surrogate pair."""
    texts = ["a\u2028b", "a\u0085b", "a\x0bb\x1cc", "ä\ud800", "line\nline"]
    for text in texts:
        append_line(tmp_path / "x.jsonl", {"error": text})
    assert [line["error"] for line in read_lines(tmp_path / "x.jsonl")] == texts


def test_a_torn_last_line_is_left_out_and_mended_and_a_broken_one_is_named(tmp_path):
    file = tmp_path / "x.jsonl"
    file.write_bytes(b'{"a": 1}\n{"a": 2')
    assert read_lines(file) == [{"a": 1}]
    append_line(file, {"a": 3})
    assert read_lines(file) == [{"a": 1}, {"a": 3}]
    file.write_bytes(b'{"a": 1}\n\xff\n{"a": 3}\n')
    with refused(f"{file}:2"):
        read_lines(file)


def test_a_disk_without_room_for_a_folder_is_one_clear_error(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", full)
    file = tmp_path / "new" / "x"
    for write in (lambda: write_atomically(file, b""), lambda: append_line(file, {}), locked(file).__enter__):
        with pytest.raises(DiskError):
            write()
