"""Files that simulators need and no package brings: where they lie, whether they are there, and what exactly is there.

A set is a folder, named by an environment variable or in its usual place. Results carry the content's hash; stand-ins,
made because the originals were not to be had, are known by theirs, and results say so.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import shutil
import tempfile
import urllib.request
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from muvla.errors import MuvlaError
from muvla.utils.io import disk_errors, read_json, write_json


@dataclass(frozen=True)
class AssetSet:
    name: str
    what: str
    variable: str  # environment variable that names the folder
    usual: Callable[[], Path]  # the folder without it
    parts: tuple[str, ...]  # what every such folder has
    # Of a folder and the SHA-256 of its files, by name: those that stand in for others.
    stand_ins: Callable[[Path, Mapping[str, str]], tuple[str, ...]]
    fetch: Callable[[Path], str]  # into a folder; returns what was fetched. Raises MuvlaError
    # Where a fetch of pinned archives lists the SHA-256 of the files it left, from the folder on; None: nothing is.
    manifest: str | None = None

    @property
    def folder(self) -> Path:
        told = os.environ.get(self.variable)
        return Path(told).expanduser() if told else self.usual()

    @property
    def remedy(self) -> str:
        return f"run `muvla assets fetch {self.name}`, or set {self.variable} to a folder that has it"

    def missing(self) -> str | None:
        """The first part that is not there."""
        return next((str(self.folder / part) for part in self.parts if not (self.folder / part).exists()), None)

    def require(self) -> Path:
        """The folder. Raises MuvlaError, with the first part that is not there."""
        if (missing := self.missing()) is not None:
            raise MuvlaError(f"assets {self.name}", got=f"no {missing}", expected=self.what, remedy=self.remedy)
        return self.folder


@dataclass(frozen=True)
class Content:
    """What a folder of assets holds."""

    files: int
    sha256: str  # of all names and contents
    stand_ins: tuple[str, ...]  # the files, from the folder on
    unverified: str = ""  # why they may be others than those that a fetch brings; empty where nothing is claimed

    def __str__(self) -> str:
        label = f" with {len(self.stand_ins)} stand-ins" * bool(self.stand_ins)
        return f"assets {self.sha256[:12]}{label}{', unverified' * bool(self.unverified)}"


def content(assets: AssetSet) -> Content:
    """Read once per process. Raises MuvlaError where the set is not there."""
    return _content(assets, assets.require())


def fetched(assets: AssetSet) -> str:
    """Fetches the set into its folder and, where its archives are pinned, lists what they left there; returns what was
    fetched. Raises MuvlaError, DiskError."""
    told = assets.fetch(assets.folder)
    if assets.manifest:
        write_json(assets.folder / assets.manifest, {"fetched": told, "files": _hashes(assets, assets.require())})
    return told


@lru_cache(maxsize=8)
def _content(assets: AssetSet, folder: Path) -> Content:
    hashes = _hashes(assets, folder)
    lines = "".join(f"{name} {digest}\n" for name, digest in hashes.items())
    stand_ins = assets.stand_ins(folder, hashes)
    unverified = "" if stand_ins or assets.manifest is None else _unverified(folder / assets.manifest, hashes)
    return Content(len(hashes), hashlib.sha256(lines.encode()).hexdigest(), stand_ins, unverified)


def _unverified(manifest: Path, hashes: Mapping[str, str]) -> str:
    """Why these are not known to be the files that a fetch left; empty if they are."""
    if not manifest.exists():
        return f"no {manifest}: `muvla assets fetch` did not bring them"
    listed = read_json(manifest).get("files")
    if not isinstance(listed, dict):
        return f"{manifest} lists no files"
    other = sorted(name for name in {*listed, *hashes} if listed.get(name) != hashes.get(name))
    return (
        f"other than {manifest} lists: {other[0]}" + f" and {len(other) - 1} more" * (len(other) > 1) if other else ""
    )


def _hashes(assets: AssetSet, folder: Path) -> dict[str, str]:
    """Name, from the folder on → SHA-256."""
    hashes = {}
    for path in sorted(path for part in assets.parts for path in (folder / part, *(folder / part).rglob("*"))):
        name = path.relative_to(folder)
        if path.is_file() and not any(part.startswith(".") for part in name.parts):  # the hub's own notes
            with path.open("rb") as file:
                hashes[name.as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashes


def from_hub(dataset: str, folder: Path) -> str:
    """A dataset of the Hugging Face hub, whole and as it is now; a second call continues. What was fetched is told, and
    the content's hash stands beside every result. Raises MuvlaError, DiskError."""
    from huggingface_hub import HfApi, snapshot_download

    with _hub_errors(dataset, folder):
        commit = HfApi().dataset_info(dataset, revision="main").sha
        snapshot_download(dataset, repo_type="dataset", revision=commit, local_dir=folder)
    return f"{dataset}@{commit}"


def archive_from_hub(dataset: str, file: str, sha256: str, folder: Path, name: str | None = None) -> str:
    """A zip archive of a dataset of the hub, unpacked into the folder; what it holds is there whole or not at all.
    `name`, if given, is what its one folder is called. Raises MuvlaError, also for one of another content than
    `sha256`, and DiskError."""
    from huggingface_hub import hf_hub_download

    with _hub_errors(dataset, folder):
        archive = Path(hf_hub_download(dataset, file, repo_type="dataset"))
        with archive.open("rb") as opened:
            found = hashlib.file_digest(opened, "sha256").hexdigest()
        if found != sha256:
            raise MuvlaError(
                f"{file} of dataset {dataset}",
                got=f"SHA-256 {found}",
                expected=sha256,
                remedy="it changed: compare it with ManiSkill's own record, and raise the protocols' versions",
            )
        _unpack(archive, folder, name)
    return f"{dataset}, {file}"


def archive_from_web(url: str, folder: Path, name: str) -> str:
    """A zip archive of one folder, as `folder/name`; there whole or not at all. Raises MuvlaError, DiskError."""
    try:
        with disk_errors(folder), tempfile.TemporaryDirectory() as place:
            archive = Path(place) / "archive.zip"
            with urllib.request.urlopen(url, timeout=60) as answer, archive.open("wb") as file:
                shutil.copyfileobj(answer, file)
            _unpack(archive, folder, name)
    except (OSError, http.client.HTTPException, zipfile.BadZipFile) as error:
        raise MuvlaError(
            url,
            got=f"{type(error).__name__}: {error}",
            expected="a zip archive",
            remedy="try again, or download it on a machine with a connection and copy the folder",
        ) from error
    return url


def _unpack(archive: Path, folder: Path, name: str | None) -> None:
    """With a name, that is what the archive's folder is called, if it is one."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as unpacked, zipfile.ZipFile(archive) as packed:
        packed.extractall(unpacked)
        parts = list(Path(unpacked).iterdir())
        for part in parts:
            target = folder / (name if name and len(parts) == 1 else part.name)
            if target.exists():
                target.rename(Path(unpacked) / f"old {target.name}")
            part.rename(target)


@contextlib.contextmanager
def _hub_errors(dataset: str, folder: Path) -> Iterator[None]:
    from huggingface_hub.errors import HTTPError

    try:
        with disk_errors(folder):
            yield
    except (HTTPError, OSError, RuntimeError) as error:
        raise MuvlaError(
            f"dataset {dataset} of the hub",
            got=" ".join(str(error).split())[:200],
            expected="its files",
            remedy="try again, or download it on a machine with a connection and copy the folder",
        ) from error
