"""Names on the hub, asked of a server that answers as the hub does, in processes of their own: where the hub is and
where its cache lies is read when huggingface_hub.constants is imported. The real hub was not asked."""

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import traceback
from dataclasses import asdict
from pathlib import Path

import pytest
from huggingface_hub import constants

from helpers import prismatic, released
from helpers.hub_server import COMMIT, Hub
from helpers.paths import TESTS
from helpers.release_size import SIZE
from muvla.checkpoints import hub as names
from muvla.checkpoints.metadata import SIZE_KEY
from muvla.cli.main import main
from muvla.errors import DiskError, MuvlaError

pytestmark = pytest.mark.slow

UNWANTED = ("optimizer--150000_checkpoint.pt", "scheduler--150000_checkpoint.pt", "pytorch_model.bin", "README.md")
INSPECT = """
import sys
from muvla.cli.main import main
for name in sys.argv[1:]:
    print("status", main(["inspect", name]), file=sys.stderr)
"""
EVALUATE = """
import functools
import sys
from helpers.released_runs import PROTOCOL, Variant
from muvla.cli.main import main
from muvla.evaluation.catalog import declared_protocols
from muvla.evaluation.context import EvaluationContext
from muvla.runs import evaluate
declared_protocols()[PROTOCOL.id] = PROTOCOL
evaluate.EvaluationContext = functools.partial(EvaluationContext, env_factory=Variant)
for name in sys.argv[1:]:
    assert main(["evaluate", name, "--protocol", PROTOCOL.id]) == 0
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A release that tells its own size."""
    path = released.write(tmp_path_factory.mktemp("hub") / "release")
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {SIZE_KEY: asdict(SIZE)}))
    (path / "lora_adapter" / "adapter_config.json").write_text("{}")
    return path


@pytest.fixture
def hub(folder, tmp_path_factory):
    """Its repositories hold more than the folder: what nobody wants to fetch, and what nobody may overlook."""

    def repository(*more: str) -> Path:
        path = tmp_path_factory.mktemp("repository") / "files"
        shutil.copytree(folder, path)
        for name in more:
            (path / name).write_bytes(b"large")
        return path

    release = repository(*UNWANTED)
    queries = repository("action_queries--150000_checkpoint.pt")
    with Hub({"owner/release": release, "owner/gated": release, "owner/queries": queries}).up() as server:
        yield server


def files(path: Path) -> set[str]:
    return {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()}


def environment_of(home, url):
    left_out = ("HF_HUB_OFFLINE", "HF_HUB_CACHE", "HF_TOKEN", "HF_HUB_DISABLE_PROGRESS_BARS")
    environment = {key: value for key, value in os.environ.items() if key not in left_out}
    environment |= {"HF_HOME": str(home), "HF_ENDPOINT": url, "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1"}
    return environment | {"PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}


def python(code, home, url, *arguments):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, env=environment_of(home, url), capture_output=True, text=True, check=False)


def forked(code, home, url, *arguments, cwd=None):
    """What `python` returns, without the seconds of the imports: a fork reads the environment again."""
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                for stream, name in ((output, "stdout"), (errors, "stderr")):
                    setattr(sys, name, stream)
                os.environ.clear()
                os.environ.update(environment_of(home, url))
                os.chdir(cwd or ".")
                importlib.reload(constants)
                names._download.cache_clear()
                sys.argv = ["-c", *map(str, arguments)]
                exec(code, {"__name__": "__main__"})
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                output.flush()
                errors.flush()
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        output.seek(0)
        errors.seek(0)
        return subprocess.CompletedProcess(arguments, status, output.read(), errors.read())


def snapshot(home: Path) -> Path:
    return home / "hub" / "models--owner--release" / "snapshots" / COMMIT


def test_a_name_on_the_hub_is_its_folder(hub, folder, tmp_path):
    """Asked for by branch and by tag. What nothing reads is left there, but a part that no policy here has a place for
    is fetched, and refused."""
    run = python(INSPECT, tmp_path, hub.url, folder, "owner/release", "owner/release@v1", "owner/queries")
    *told, queries, refused = run.stderr.splitlines()
    assert told == ["status 0"] * 3, "no bars where there is no terminal"
    assert refused == "status 2" and "action_queries--150000_checkpoint.pt', expected the parts of a policy" in queries
    itself, fetched, again = re.split(r"(?<=nothing\n)", run.stdout.rstrip("\n") + "\n")[:3]
    assert fetched == again == itself.replace(f"{folder}:", f"{snapshot(tmp_path)}:") and "μVLA" in itself
    assert files(snapshot(tmp_path)) == files(folder) == files(hub.folders["owner/release"]) - set(UNWANTED)
    assert not [path for path in hub.asked if path.endswith(UNWANTED)]


def test_a_training_folder_of_the_hub_is_its_folder(tmp_path):
    """As MemoryVLA's releases lie there: the training file in a folder of its own."""
    folder = prismatic.write(tmp_path / "run", "memoryvla")
    with Hub({"shihao1895/memvla-libero-spatial": folder}).up() as server:
        run = forked(INSPECT, tmp_path / "home", server.url, folder, "shihao1895/memvla-libero-spatial")
    assert run.stderr.splitlines() == ["status 0"] * 2, run.stderr
    local, fetched = re.split(r"(?<=nothing\n)", run.stdout.rstrip("\n") + "\n")[:2]
    assert "MemoryVLA" in local and local.splitlines()[1:] == fetched.splitlines()[1:]


def test_a_path_asks_nobody(folder, monkeypatch):
    monkeypatch.setattr(names, "snapshot_download", lambda *_, **__: pytest.fail("asked"))
    for path in (folder, folder / "nowhere", "./owner/release", "../owner/release"):
        assert names.resolve_checkpoint(path) == names.resolve_checkpoint(str(path)) == Path(path)


def test_without_the_hub_the_cache_is_enough_if_it_is_whole(hub, tmp_path):
    first = forked(INSPECT, tmp_path, hub.url, "owner/release")
    hub.shutdown()
    hub.server_close()
    cut = f"for file in __import__('pathlib').Path({str(snapshot(tmp_path))!r}).glob('memory_*'): file.unlink()"
    cut += "\n__import__('muvla.checkpoints.hub').checkpoints.hub._download.cache_clear()"  # as a new process would
    offline = INSPECT + cut + "\nsys.argv.pop()" + INSPECT  # what is left is a whole OpenVLA-OFT to the eye
    again = forked(offline, tmp_path, hub.url, "owner/release", f"owner/release@{COMMIT}")
    *whole, error, status = again.stderr.splitlines()
    assert whole == ["status 0"] * 2 and again.stdout == first.stdout * 2 and status == "status 2"
    assert error.startswith("error: owner/release: got no such folder, and no answer")


def test_each_refusal_is_one_line_that_names_the_repository(hub, tmp_path):
    expected = {
        "owner/unknown": "no such repository, or a private one",
        "owner/release@v2": "no such revision",
        "owner/gated": f"Remedy: log in with `hf auth login` and accept the terms on {hub.url}/owner/gated",
        "owner/forbidden": "no permission",
        "owner/fails": "(Server error '500",
        "owner/na--me": "no name",
        "owner/release/main": "no such folder, expected a folder, or owner/name[@revision]",
        "release": "no such folder, expected a folder, or owner/name[@revision]",
        "owner/file": "got a file, expected a folder",
    }
    (tmp_path / "owner").mkdir()
    (tmp_path / "owner" / "file").touch()
    run = forked(INSPECT, tmp_path / "home", hub.url, *expected, cwd=tmp_path)
    lines = run.stderr.splitlines()
    assert lines[1::2] == ["status 2"] * len(expected) and run.stdout == ""
    for line, (name, told) in zip(lines[::2], expected.items(), strict=True):
        assert line.startswith(f"error: {name}: got ") and told in line


def test_a_release_of_the_hub_is_the_run_of_its_folder(hub, folder, tmp_path):
    run = forked(EVALUATE, tmp_path, hub.url, folder, "owner/release@v1", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    (made,) = (tmp_path / "runs").iterdir()
    told = json.loads((made / "release.json").read_text())
    assert (told["name"], told["path"]) == ("owner/release@v1", str(snapshot(tmp_path)))


def test_a_full_disk_is_one_clear_error(hub, small_disk):
    (small_disk / "filler").write_bytes(bytes(1024 * 1024 - 60_000))
    run = forked(INSPECT, small_disk, hub.url, "owner/release")
    error, status = run.stderr.splitlines()[-2:]
    assert status == "status 2" and "No space left on device" in error and "free some space" in error


@pytest.mark.parametrize(
    ("raised", "error"),
    [
        ("IO Error: No space left on device (os error 28)", DiskError),
        ("CAS Client Error: Request middleware error: error sending request for url", MuvlaError),
    ],
)
def test_what_hf_xet_raises_is_one_clear_error(monkeypatch, raised, error):
    """In the words of hf_xet 1.8 on a full disk and without a connection: of this server nothing is fetched by it."""

    def snapshot_download(*_, **__):
        raise RuntimeError(f"Task error: File reconstruction error: {raised}")

    monkeypatch.setattr(names, "snapshot_download", snapshot_download)
    with pytest.raises(error) as caught:
        names.resolve_checkpoint("owner/release")
    assert type(caught.value) is error


def test_a_train_id_is_no_name_on_the_hub(tmp_path, capsys):
    assert main(["evaluate", "abc", "--protocol", "x", "--runs", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: RUN: ")
