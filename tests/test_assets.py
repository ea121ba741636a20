"""Assets that no package brings: listed, checked, known by their content, fetched from a server that answers as the hub
does. The real hub was not asked."""

import errno
import hashlib
import http.client
import json
import os
import re
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from unittest.mock import MagicMock

import pytest

from helpers.errors import printed_field, refused
from helpers.hub_server import COMMIT, Hub
from muvla.cli.main import EXIT_BAD_INPUT, main
from muvla.envs import assets
from muvla.envs.assets import archive_from_hub, archive_from_web, content, fetched
from muvla.envs.libero.assets import LIBERO
from muvla.envs.libero.suite import LiberoSuite
from muvla.envs.maniskill import assets as bridge
from muvla.envs.maniskill.assets import BRIDGE
from muvla.envs.mikasa.assets import MUG, SHELLGAME, STAND_IN
from muvla.envs.registry import get_asset_set
from muvla.errors import DiskError

FETCH = "import sys; from muvla.cli.main import main; sys.exit(main(['assets', 'fetch', 'libero']))"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    path = write(tmp_path / "assets")
    monkeypatch.setenv("MUVLA_LIBERO_ASSETS", str(path))
    return path


def write(path):
    for part in LIBERO.parts:
        (path / part).mkdir(parents=True)
        (path / part / "one.xml").write_text(part)
    return path


def test_what_is_missing_is_named_with_its_remedy(folder, capsys):
    assert main(["assets", "list"]) == 0
    said = capsys.readouterr().out
    assert str(folder) in said and "MUVLA_LIBERO_ASSETS" in said
    (folder / "scenes" / "one.xml").unlink()
    (folder / "scenes").rmdir()
    assert main(["assets", "check", "libero"]) == 1
    said = capsys.readouterr().out
    assert str(folder / "scenes") in said and "muvla assets fetch libero" in said and "MUVLA_LIBERO_ASSETS" in said
    assert main(["assets", "list"]) == 0
    assert "missing" in capsys.readouterr().out
    assert main(["assets", "check", "mugs"]) == EXIT_BAD_INPUT
    assert printed_field(capsys) == "NAME"


def test_without_the_variable_they_lie_where_libero_itself_puts_them(monkeypatch):
    monkeypatch.delenv("MUVLA_LIBERO_ASSETS", raising=False)
    assert LIBERO.folder == Path.home() / ".cache" / "libero" / "assets"


def test_they_are_known_by_their_content(folder, tmp_path, monkeypatch):
    """Names and bytes, wherever they lie; not what the hub's client writes down beside them."""
    first = content(LIBERO)
    assert first.files == 6 and first.stand_ins == () and str(first) == f"assets {first.sha256[:12]}"
    found = {first.sha256}
    for change in ("a note", "a byte", "a name", "another file"):
        path = write(tmp_path / change)
        one = path / "scenes" / "one.xml"
        if change == "a note":
            (path / ".cache").mkdir()
            (path / ".cache" / "note").write_text("x")
        if change == "a byte":
            one.write_text("Scenes")
        if change == "a name":
            one.rename(path / "scenes" / "two.xml")
        if change == "another file":
            (path / "scenes" / "two.xml").write_text("")
        monkeypatch.setenv("MUVLA_LIBERO_ASSETS", str(path))
        found.add(content(LIBERO).sha256)
    assert len(found) == 4, "all but the note"


def test_stand_ins_are_told(folder, monkeypatch, capsys):
    known = hashlib.sha256(b"scenes").hexdigest()
    told = lambda _, hashes: tuple(name for name, digest in hashes.items() if digest == known)  # noqa: E731
    monkeypatch.setattr(LiberoSuite, "assets", (replace(LIBERO, stand_ins=told),))
    assert str(content(get_asset_set("libero"))).endswith("with 1 stand-ins")
    assert main(["assets", "check", "libero"]) == 0
    assert "scenes/one.xml" in capsys.readouterr().out


def test_those_of_the_shared_test_data_are_known_as_stand_ins(libero_assets):
    assert len(content(LIBERO).stand_ins) == 6


@pytest.mark.slow
@pytest.mark.parametrize("there", [True, False])
def test_they_are_fetched_from_the_hub(folder, tmp_path, there):
    """In a process of its own: where the hub is, is read when huggingface_hub is imported."""
    target = tmp_path / "target"
    with Hub({"datasets/lerobot/libero-assets": folder} if there else {}).up() as hub:
        env = os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
        env |= {"MUVLA_LIBERO_ASSETS": str(target)}
        run = subprocess.run([sys.executable, "-c", FETCH], capture_output=True, text=True, env=env, check=False)
    if there:
        assert run.returncode == 0, run.stderr
        assert f"lerobot/libero-assets@{COMMIT}" in run.stdout
        assert f"6 files, content {content(LIBERO).sha256[:12]}" in run.stdout
    else:
        assert run.returncode == EXIT_BAD_INPUT
        assert "error: dataset lerobot/libero-assets of the hub" in run.stderr and "copy the folder" in run.stderr


def test_an_archive_is_unpacked_whole_if_it_is_the_known_one(tmp_path, monkeypatch):
    packed = tmp_path / "models.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("models/mug.ply", "a mug")
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda dataset, file, repo_type: str(packed))
    known = hashlib.sha256(packed.read_bytes()).hexdigest()
    (tmp_path / "there" / "models").mkdir(parents=True)
    (tmp_path / "there" / "models" / "of before").touch()
    with refused("models.zip of dataset some/models"):
        archive_from_hub("some/models", "models.zip", "0000", tmp_path / "there")
    assert [one.name for one in (tmp_path / "there" / "models").iterdir()] == ["of before"], "what was there stays"
    assert archive_from_hub("some/models", "models.zip", known, tmp_path / "there") == "some/models, models.zip"
    assert [one.read_text() for one in (tmp_path / "there").rglob("*") if one.is_file()] == ["a mug"]
    assert archive_from_hub("some/models", "models.zip", known, tmp_path / "named", "mugs") == "some/models, models.zip"
    assert (tmp_path / "named" / "mugs" / "mug.ply").read_text() == "a mug"


def test_an_archive_of_the_web_is_one_folder_of_a_name(tmp_path):
    packed = tmp_path / "v0.2.0.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("Robot-0.2.0/arm.urdf", "an arm")
    (tmp_path / "there" / "arm").mkdir(parents=True)
    (tmp_path / "there" / "arm" / "of before").touch()
    assert archive_from_web(packed.as_uri(), tmp_path / "there", "arm") == packed.as_uri()
    assert [one.name for one in (tmp_path / "there" / "arm").iterdir()] == ["arm.urdf"]
    packed.write_bytes(b"not found")
    for url in (packed.as_uri(), (tmp_path / "nothing.zip").as_uri()):
        with refused(url):
            archive_from_web(url, tmp_path / "there", "arm")
    assert (tmp_path / "there" / "arm" / "arm.urdf").exists(), "what was there stays"


def test_whatever_breaks_on_the_way_is_one_error(tmp_path, monkeypatch):
    """Also in the middle of an answer; a full disk stays one."""
    for broken in (http.client.IncompleteRead(b"PK"), TimeoutError("timed out"), ConnectionResetError("reset")):
        answer = MagicMock()
        answer.__enter__.return_value.read.side_effect = broken
        asked = MagicMock(return_value=answer)
        monkeypatch.setattr(assets.urllib.request, "urlopen", asked)
        with refused("https://some/a.zip") as info:
            archive_from_web("https://some/a.zip", tmp_path, "arm")
        assert not isinstance(info.value, DiskError) and asked.call_args.kwargs["timeout"] == 60
    answer.__enter__.return_value.read.side_effect = OSError(errno.ENOSPC, "full")
    with pytest.raises(DiskError):
        archive_from_web("https://some/a.zip", tmp_path, "arm")


def test_a_mug_is_verified_by_what_a_fetch_left_there(tmp_path, monkeypatch, capsys):
    """Its archive has a known digest, the files have none: those of a fetch are listed when it is done."""

    def fetch(folder):
        for part in SHELLGAME.parts[:3]:
            (folder / part).parent.mkdir(parents=True, exist_ok=True)
            (folder / part).write_text("{}")
        return "the archive"

    for place, change, said in (
        ("fetched", lambda mug: None, ""),
        ("another byte", lambda mug: mug.write_text("x"), "other than .*muvla-manifest.json lists: .*collision.ply"),
        ("one more", lambda mug: (mug.parent / "more").write_text("x"), "other than .*: .*025_mug/more"),
    ):
        folder = tmp_path / place
        monkeypatch.setenv("MS_ASSET_DIR", str(folder))
        one = replace(SHELLGAME, fetch=fetch)
        assert fetched(one) == "the archive"
        change(folder / one.parts[1])
        assert re.search(said, content(one).unverified) and bool(content(one).unverified) == bool(said)
        assert str(content(one)).endswith(", unverified") == bool(said)
    monkeypatch.setenv("MS_ASSET_DIR", str(tmp_path / "copied"))
    fetch(tmp_path / "copied")
    assert main(["assets", "check", "shellgame"]) == 0
    told = capsys.readouterr().out
    assert "unverified" in told and "muvla assets fetch shellgame" in told
    mug = {MUG: {STAND_IN: True}}
    monkeypatch.setenv("MS_ASSET_DIR", str(tmp_path / "stand-in"))
    fetch(tmp_path / "stand-in")
    (tmp_path / "stand-in" / SHELLGAME.parts[0]).write_text(json.dumps(mug))
    assert str(content(SHELLGAME)).endswith("with 1 stand-ins"), "labelled already"
    assert "pinned by its tag alone" in " ".join(BRIDGE.what.split()) and BRIDGE.manifest


def test_the_twins_and_their_robot_are_fetched_to_where_maniskill_looks(tmp_path, monkeypatch):
    asked = []
    fetch = lambda *told: asked.append(told) or told[0]  # noqa: E731
    monkeypatch.setattr(bridge, "archive_from_hub", fetch)
    monkeypatch.setattr(bridge, "archive_from_web", fetch)
    assert "ManiSkill_bridge_v2_real2sim; https://github.com/haosulab/" in BRIDGE.fetch(tmp_path)
    assert [told[-2:] for told in asked] == [
        (tmp_path / "data" / "tasks", "bridge_v2_real2sim_dataset"),
        (tmp_path / "data" / "robots", "widowx"),
    ]
