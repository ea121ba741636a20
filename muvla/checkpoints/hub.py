"""Released checkpoints by their names on the Hugging Face Hub, downloaded into the Hub's cache and read from there."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import tqdm

from muvla.checkpoints.parts import IGNORED
from muvla.checkpoints.recognition import recognise
from muvla.checkpoints.released import UPSTREAM_FILES
from muvla.checkpoints.training_file import CHECKPOINTS, find_run_folder
from muvla.errors import MuvlaError
from muvla.utils.io import disk_errors

HUB_NAME = re.compile(r"(?P<repository>\w[\w.-]*/\w[\w.-]*)(@(?P<revision>\S+))?", re.ASCII)
PATH_STARTS = ("/", ".", "~")  # no owner on the Hub begins with these
# All parts are downloaded, also parts that the loader refuses: it can refuse only what it sees.
FETCHED = (
    *(*UPSTREAM_FILES, "model*.safetensors", "*--*_checkpoint.pt", "lora_adapter/*"),
    *("*.yaml", f"{CHECKPOINTS}/*.pt"),
)
SKIPPED = tuple(f"*{part}--*" for part in IGNORED)  # gigabytes that nothing reads
EXPECTED = "a folder, or owner/name[@revision] of the Hub"


def resolve_checkpoint(name: str | Path) -> Path:
    """Returns the folder that `name` means.

    An existing folder is returned as it is. `owner/name` or `owner/name@revision` is downloaded from the Hub unless the
    cache holds it; without a connection, a complete copy in the cache is used. Nothing of the repository is executed. A
    path that does not exist is returned as it is, and its reader raises the error.

    Raises:
        MuvlaError: `name` is neither a folder nor a Hub name, or the Hub refuses it.
        DiskError: the cache cannot be written.
    """
    path, text = Path(name).expanduser(), str(name)
    missing = not os.path.exists(path)  # also of a name that no file can have
    if os.path.isdir(path) or find_run_folder(path) is not None or (missing and text.startswith(PATH_STARTS)):
        return path
    if missing and (match := HUB_NAME.fullmatch(text)):
        return _download(text, match["repository"], match["revision"])
    if missing:
        raise _no_name(text, "no such folder")
    recognised = recognise(path)
    raise MuvlaError(
        text,
        got=recognised.got if recognised else "neither a file nor a folder",
        expected=EXPECTED,
        remedy=recognised.remedy if recognised else "pass a folder",
    )


@lru_cache(maxsize=16)
def _download(name: str, repository: str, revision: str | None) -> Path:
    """Cached per process, so that a name keeps its meaning while a cell is trained."""
    try:
        with disk_errors(Path(constants.HF_HUB_CACHE)), _with_error_number():
            return Path(
                snapshot_download(
                    repository,
                    revision=revision,
                    allow_patterns=list(FETCHED),
                    ignore_patterns=list(SKIPPED),
                    tqdm_class=_Bar,
                )
            )
    except HFValidationError:
        raise _no_name(name, "no such folder, and no name that the Hub allows") from None
    except (HTTPError, OSError, RuntimeError) as error:
        raise _explain(name, repository, error) from error


class _Bar(tqdm):
    """A progress bar that shows on a terminal only; the Hub's file bar shows anywhere."""

    def __init__(self, *args, **options):
        super().__init__(*args, **{"disable": None, **options})


@contextlib.contextmanager
def _with_error_number() -> Iterator[None]:
    """Converts an error of hf_xet to an OSError with its number.

    hf_xet downloads large files and states a system error's number only in the text, mostly of a RuntimeError: "IO
    Error: No space left on device (os error 28)".
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), str(error)) from error


def _no_name(name: str, got: str) -> MuvlaError:
    return MuvlaError(
        name,
        got=got,
        expected=EXPECTED,
        remedy="list the folder's parent with `ls`; a name of the Hub has the form owner/name",
    )


def _explain(name: str, repository: str, error: Exception) -> MuvlaError:
    """Returns one error for every failure of the Hub, the connection or hf_xet."""
    offline = isinstance(error, LocalEntryNotFoundError)  # its cause says why the Hub did not answer
    cause = (error.__cause__ or error) if offline else error
    status = cause.response.status_code if isinstance(cause, HfHubHTTPError) else None
    page = f"{constants.ENDPOINT}/{repository}"
    if isinstance(cause, RevisionNotFoundError):
        got, remedy = "no such revision", f"name a branch, a tag or a commit of {page}"
    elif isinstance(cause, GatedRepoError) or status == 403:
        got, remedy = "no permission", f"log in with `hf auth login` and accept the terms on {page}"
    elif isinstance(cause, RepositoryNotFoundError) or status == 401:
        got = "no such folder, and no such repository, or a private one"
        remedy = "check the name; for a private repository log in with `hf auth login`"
    else:
        message = next((line for line in str(cause).splitlines() if line), type(cause).__name__)
        got = f"no such folder, and {'no answer' if status is None else 'an error'} of the Hub ({message})"
        remedy = "try again, or download the repository on a machine with a connection and pass its folder"
    return MuvlaError(name, got=got, expected=EXPECTED, remedy=remedy)
