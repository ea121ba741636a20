"""Locks on folders that machines share: other hosts, `flock` that is missing or ends at its host, dead owners."""

import errno
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import msgspec
import pytest

from helpers.errors import refused
from helpers.shared_folder import SILENCE, pretend, start
from muvla.errors import Busy, DiskError
from muvla.utils import filesystem, leases, locks, owner
from muvla.utils.io import append_line, read_lines, write_atomically
from muvla.utils.locks import describe_locks, holder, locked, remove_lock, require_locks, watch
from sweeps.tracking.base import StudyFacts
from sweeps.tracking.mlflow import MlflowTracker

HOLD = "with locked(Path(sys.argv[1])):\n    print('held', flush=True); time.sleep(60)"


@pytest.fixture
def missing():
    """`flock` ends at its host."""


@pytest.fixture
def here(missing, monkeypatch):
    """This process works on the machine `here`."""
    pretend("here", missing, monkeypatch.setattr)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_flock_has_leases(tmp_path, monkeypatch, number):
    pretend("here", number, monkeypatch.setattr)
    for _ in range(2):
        with locked(tmp_path / "lock"):
            assert leases.lease_numbers(tmp_path / "lock")
            with pytest.raises(Busy), locked(tmp_path / "lock"):
                pass
    require_locks(tmp_path)


def hold(host, lock, missing) -> subprocess.Popen:
    process = start(host, HOLD, lock, missing=missing)
    line = process.stdout.readline().strip()
    assert line == "held", process.communicate()[1]
    return process


def renamed(**changes):
    """This process as an owner, with fields changed."""
    return msgspec.structs.replace(owner.this_process(), **changes)


def end(process):
    process.kill()
    process.communicate()


@pytest.mark.slow
def test_a_lock_of_another_machine_holds_as_long_as_its_heart_beats(tmp_path, missing, here):
    lock = tmp_path / "lock"
    other = hold("there", lock, missing)
    try:
        time.sleep(1.5 * SILENCE)
        with pytest.raises(Busy) as info, locked(lock):
            pass
        assert info.value.field == str(lock) and f"there:{other.pid} since " in info.value.got
        assert holder(lock).host == "there" and holder(lock).pid == other.pid
    finally:
        end(other)
    killed = time.monotonic()
    assert holder(lock), "nobody knows yet that the owner is dead"
    with locked(lock):
        assert time.monotonic() - killed > 0.7 * SILENCE, "a lock is taken only after the silence"
        assert holder(lock).host == "here"
    assert holder(lock) is None


def test_a_killed_owner_of_this_machine_holds_nothing(tmp_path, missing, here):
    lock = tmp_path / "lock"
    end(hold("here", lock, missing))
    started = time.monotonic()
    with locked(lock):
        assert time.monotonic() - started < 0.5 * SILENCE


def test_a_process_with_the_id_of_a_dead_owner_is_another_process(tmp_path, here):
    lock = tmp_path / "lock"
    leases.take_lease(lock, renamed(started=1), 1)
    assert holder(lock) is None


def test_a_stopped_owner_of_this_machine_keeps_its_lock(tmp_path, missing, here):
    lock = tmp_path / "lock"
    other = hold("here", lock, missing)
    try:
        os.kill(other.pid, signal.SIGSTOP)
        time.sleep(1.5 * SILENCE)
        with pytest.raises(Busy), locked(lock):
            pass
    finally:
        end(other)


@pytest.mark.parametrize("shift", [-3e7, 3e7])
def test_clocks_of_two_machines_are_never_compared(tmp_path, monkeypatch, shift):
    """A lease with a time stamp of last year or of next year is silent only if its stamp does not change."""
    pretend("here", None, monkeypatch.setattr)
    now = [0.0]
    monkeypatch.setattr(leases, "time", SimpleNamespace(monotonic=lambda: now[0]))
    lock, foreign = tmp_path / "lock", renamed(machine="there", since=time.time() + shift)
    leases.take_lease(lock, foreign, 1)
    for beat in range(3):
        os.utime(leases.lease_file(lock, 1), (time.time() + shift - beat,) * 2)
        assert holder(lock) == foreign
        now[0] += 0.9 * SILENCE
    assert holder(lock) == foreign
    now[0] += 0.2 * SILENCE
    assert holder(lock) is None


def test_of_many_that_take_a_dead_lease_one_gets_it(tmp_path, missing, here):
    """Threads stand for machines: every take ends in a link that one of them can make."""
    lock, inside, most, taken = tmp_path / "lock", [], [], []
    leases.take_lease(lock, renamed(started=1), 1)

    def take():
        with locked(lock, wait=True):
            inside.append(1)
            most.append(len(inside))
            taken.append(1)
            time.sleep(0.01)
            inside.pop()

    threads = [threading.Thread(target=take) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1 and len(taken) == 6
    assert len(leases.lease_numbers(lock)) == 1, "old leases are removed"


def test_a_reader_of_an_old_listing_takes_nothing(tmp_path):
    """A listing from a cache shows lease 1, which its owner has replaced by lease 2 and removed."""
    lock = tmp_path / "lock"
    leases.take_lease(lock, renamed(), 2)
    assert not leases.take_lease(lock, renamed(), 1) and not leases.take_lease(lock, renamed(), 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["lock.lease-2"]


def test_an_owner_that_slept_too_long_writes_nothing_more(tmp_path, here, monkeypatch):
    """Its machine slept: another machine took the lock over. No line is written twice."""
    log, lock = tmp_path / "train.jsonl", tmp_path / "lock"
    with locked(lock):
        append_line(log, {"update": 1})
        (held,) = locks._held
        foreign = renamed(machine="there")
        held.last -= 2 * SILENCE
        leases.take_lease(lock, foreign, leases.newest_lease(lock) + 1)
        for write in (lambda: append_line(log, {"update": 1}), lambda: write_atomically(tmp_path / "x", b"")):
            with pytest.raises(DiskError) as info:
                write()
            assert info.value.field == str(lock)
    assert read_lines(log) == [{"update": 1}] and holder(lock) == foreign, "the other one keeps its lease"
    append_line(log, {"update": 2})


@pytest.mark.slow
def test_a_folder_of_a_server_and_its_clients_has_one_lock(tmp_path, monkeypatch):
    """The server holds `flock`, the client a lease, each sees the other's."""
    lock = tmp_path / "lock"
    client = hold("client", lock, None)
    try:
        with pytest.raises(Busy) as info, locked(lock):
            pass
        assert "client:" in info.value.got
    finally:
        end(client)
    monkeypatch.setattr(leases, "SILENCE", SILENCE)
    monkeypatch.setattr(leases, "HEARTBEAT", 0.05)
    with locked(lock):
        assert not leases.lease_numbers(lock), "the server's lock is a flock"
        client = start("client", HOLD, lock)
        assert "Busy" in client.communicate(timeout=60)[1]


@pytest.mark.slow
def test_two_processes_without_flock_write_no_line_twice(tmp_path):
    code = (
        "from muvla.utils.io import append_line, read_lines\n"
        "log = Path(sys.argv[1])\n"
        "for _ in range(5):\n"
        "    with locked(log.with_name('lock'), wait=True):\n"
        "        lines = len(read_lines(log)); time.sleep(0.02); append_line(log, {'update': lines})\n"
    )
    log = tmp_path / "train.jsonl"
    processes = [start(host, code, log, missing=errno.ENOSYS) for host in ("a", "b")]
    for process in processes:
        assert process.communicate(timeout=120)[1] == ""
    assert [line["update"] for line in read_lines(log)] == list(range(10))


def test_watching_waits_for_a_sign_of_life_and_no_longer_than_the_silence(tmp_path, here, missing):
    alive, dead, free = (tmp_path / name for name in ("alive", "dead", "free"))
    other = hold("there", alive, missing)
    try:
        leases.take_lease(dead, renamed(machine="there"), 1)
        assert set(watch([alive, dead, free], lambda: False)) == {alive, dead}
        assert set(watch([alive, dead, free])) == {alive}
    finally:
        end(other)


def test_a_heart_beats_on_a_disk_that_comes_back(tmp_path, here, monkeypatch):
    with locked(tmp_path / "lock"):
        (held,) = locks._held

        def away(*_, **__):
            raise OSError(errno.EIO, "away")

        with monkeypatch.context() as patch:
            patch.setattr(locks.os, "utime", away)
            held.last -= 2 * SILENCE
            with pytest.raises(DiskError):
                append_line(tmp_path / "x", {})
        append_line(tmp_path / "x", {})


def test_a_file_system_without_flock_and_without_links_is_refused(tmp_path, here, monkeypatch):
    def link(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(leases.os, "link", link)
    with refused(str(tmp_path)):
        require_locks(tmp_path)
    assert not [p for p in tmp_path.iterdir() if p.name.endswith(".tmp")]


def test_a_lock_is_removed_with_its_leases(tmp_path, here):
    with locked(tmp_path / "lock"):
        pass
    remove_lock(tmp_path / "lock")
    assert not list(tmp_path.iterdir())


def test_mlflow_is_off_where_two_writers_would_break_its_database(tmp_path, monkeypatch):
    pretend("here", None, monkeypatch.setattr)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tracker = MlflowTracker(tmp_path)
    with refused("MLFLOW_TRACKING_URI"):
        tracker.open_study(StudyFacts("study", "title", "", "code", None))
    assert not (tmp_path / "mlflow.db").exists()


MOUNTS = """22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 22 0:50 / /home rw,relatime shared:1 - nfs4 server:/home rw,vers=4.2
31 22 0:51 / /scratch\\040space rw - lustre 10.0.0.1@tcp:/scratch rw,localflock
32 22 0:52 / /home/local rw - xfs /dev/sdb rw
"""


@pytest.mark.parametrize(
    ("path", "system", "local"),
    [
        ("/", "ext4", True),
        ("/home/me/runs", "nfs4", False),
        ("/homeless", "ext4", True),
        ("/scratch space/runs", "lustre", False),
        ("/home/local/runs", "xfs", True),
    ],
)
def test_the_file_system_decides_the_method(path, system, local):
    assert filesystem.mounted_type(path, MOUNTS) == system
    assert (system in filesystem.LOCAL) == local
    assert filesystem.mounted_type(path, "") == ""


def test_the_method_is_described(tmp_path, monkeypatch):
    monkeypatch.setattr(filesystem, "_types", {})
    monkeypatch.setattr(filesystem, "_mounts", lambda: MOUNTS.replace(" / / ", f" / {tmp_path} "))
    assert "flock (ext4" in describe_locks(tmp_path)
    pretend("here", errno.ENOSYS, monkeypatch.setattr)
    assert "leases" in describe_locks(tmp_path) and not list(tmp_path.iterdir())


@pytest.mark.cluster
def test_two_machines_in_namespaces_of_their_own(tmp_path):
    """`unshare`: another host name, and another space of process ids, in which ids mean other processes."""
    unshare = ["unshare", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c"]
    if subprocess.run([*unshare, "true"], check=False, capture_output=True).returncode:
        pytest.skip("namespaces are not allowed here")
    code = "import sys, time; from pathlib import Path; from muvla.utils import filesystem; filesystem.LOCAL = ()\n"
    code += "from muvla.utils.locks import locked\n" + HOLD
    lock, python = tmp_path / "lock", f"exec {sys.executable} -c {shlex.quote(code)} {tmp_path / 'lock'}"
    other = subprocess.Popen([*unshare, f"hostname elsewhere; {python}"], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline().strip() == "held"
        assert holder(lock).host == "elsewhere" and not holder(lock).is_here
        with pytest.raises(Busy), locked(lock):
            pass
    finally:
        other.kill()
        other.wait()
    started = time.monotonic()
    with locked(lock):
        assert time.monotonic() - started > leases.SILENCE - 2 * leases.HEARTBEAT
