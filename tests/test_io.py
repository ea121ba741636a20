"""Writing and reading lines: full disks, strange texts, torn and broken lines."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.errors import refused
from muvla.errors import DiskError
from muvla.utils.io import HOST, append_line, leftovers, read_lines, write_atomically
from muvla.utils.locks import locked


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


def dead_process() -> int:
    """The id of a process that has ended."""
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    return int(ended.stdout)


def test_what_a_dead_writer_left_is_removed_by_the_next_and_a_living_writer_is_left_alone(tmp_path):
    dead, alive = dead_process(), os.getppid()
    left = {pid: tmp_path / f".x[1].json.{HOST}-{pid}.tmp" for pid in (dead, alive)}
    old, elsewhere = tmp_path / f".x[1].json.{dead}.tmp", tmp_path / f".x[1].json.0123abcd-{dead}.tmp"
    another = tmp_path / f".y.json.{HOST}-{dead}.tmp"
    for file in (*left.values(), old, elsewhere, another):
        file.touch()
    assert set(leftovers(tmp_path)) == {left[dead], old, another}
    write_atomically(tmp_path / "x[1].json", b"{}")
    assert set(tmp_path.iterdir()) == {tmp_path / "x[1].json", left[alive], elsewhere, another}


def test_a_writer_that_is_killed_leaves_nothing_for_ever(tmp_path):
    """Killed after its temporary file is written, before it has the name."""
    code = (
        "import os, signal, sys; from pathlib import Path; from muvla.utils import io\n"
        "Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "io.write_json(Path(sys.argv[1]), {})"
    )
    killed = subprocess.run([sys.executable, "-c", code, tmp_path / "x.json"], check=False)
    assert killed.returncode < 0 and len(list(tmp_path.iterdir())) == 1
    write_atomically(tmp_path / "x.json", b"{}")
    assert list(tmp_path.iterdir()) == [tmp_path / "x.json"]


def test_a_lock_file_with_strange_content_is_a_lock(tmp_path):
    with locked(tmp_path / "lock"):
        (tmp_path / "lock").write_bytes(b"\xff\x00")
        code = "import sys; from pathlib import Path; from muvla.utils.locks import holder\n"
        code += "print(holder(Path(sys.argv[1])).pid)"
        seen = subprocess.run(
            [sys.executable, "-c", code, tmp_path / "lock"], capture_output=True, check=True, text=True
        )
    assert seen.stdout.strip() == "0"
