"""The folder of one train id: configuration, provenance, checkpoints, training log and episode rows.

    runs/<train id>/
      run.json            the canonical cell, the folders of its datasets, and the hash of their content
      provenance/<id>.json
      checkpoints/        see muvla.checkpoints.native
      weights/            the policy after updates that a study evaluates during the training
      train.jsonl         a line every few updates
      rows/, seals/       see muvla.runs.results
      chunks/             see muvla.evaluation.action_chunks
      probes/             see muvla.runs.probe
      failure.json        why the cell has no (further) result; absent otherwise
      timings.jsonl       wall time and provenance of every training and evaluation
      set-aside-1/        results that a retry set aside because they are no measurement
      lock, lock.lease-N  held by the process that works on the cell

These files are the only account of what is finished. No second account exists that could disagree.
"""

from __future__ import annotations

import contextlib
import time
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from muvla.checkpoints import native
from muvla.checkpoints.hub import resolve_checkpoint
from muvla.checkpoints.native_policy import load_policy
from muvla.config import Cell, canonical, started_at
from muvla.config.serialization import from_dict, to_dict
from muvla.data.mixture import join
from muvla.data.normalization import Statistics
from muvla.data.store import EpisodeStore
from muvla.errors import DiskError, Interrupted, MuvlaError, NotAMeasurement, RankLost, located
from muvla.evaluation.records import EpisodeRow, TakenMeasurement
from muvla.models.compilation import is_compiled
from muvla.models.policy import Policy
from muvla.training.distributed.base import SINGLE_PROCESS, Ranks
from muvla.utils import provenance as origin
from muvla.utils.foreign import decode, read_model, read_object
from muvla.utils.io import append_line, disk_errors, leftovers, read_lines, write_json
from muvla.utils.locks import holder, locked
from muvla.utils.names import require_name
from muvla.utils.owner import Owner

NOT_A_MEASUREMENT = "not a measurement"  # kind of a failure after which no number of the cell counts
FOLDERS = (
    "rows",
    "seals",
    "chunks",
    "probes",
    "provenance",
    "checkpoints",
    native.WEIGHTS,
)  # of a run, in which single files are written
LOGS = ("train.jsonl", "timings.jsonl")
SET_ASIDE = "set-aside"  # folders of results that are no measurement, numbered


class FailureMark(msgspec.Struct, rename={"reason": "kind"}):
    """The content of `failure.json`."""

    reason: Literal["failed", "not a measurement"]
    error: str
    traceback: str


class RunMeta(msgspec.Struct):
    """The content of `run.json`."""

    train: str  # train id
    cell: dict[str, Any]
    data: str | Annotated[list[str], msgspec.Meta(min_length=1)]  # folders of the datasets
    sha256: str  # of the data's content


class Timing(msgspec.Struct):
    """A line of `timings.jsonl`; `what` begins with the word training or evaluation."""

    what: Annotated[str, msgspec.Meta(pattern="^(training|evaluation)( |$)")]
    seconds: float
    provenance: str


@dataclass(frozen=True)
class TrainedOn:
    """The facts of a policy's training that an evaluation needs."""

    statistics: Statistics
    seed: int | None  # training seed; None if it is unknown
    episodes: tuple[range, ...]  # by dataset, the seeds that the demonstrations were drawn from


@dataclass(frozen=True)
class Run:
    """One train id's folder. `root` holds the run folders, `data` the datasets."""

    root: Path
    data: Path
    train: str

    @property
    def folder(self) -> Path:
        return self.root / self.train

    @property
    def rows(self) -> Path:
        return self.folder / "rows"

    def absolute(self) -> Run:
        """The same run for a process of another working directory."""
        return replace(self, root=self.root.absolute(), data=self.data.absolute())

    # --- configuration and data -------------------------------------------------------------------------------------

    def create(self, cell: Cell, store: EpisodeStore) -> None:
        """Write `run.json`. Write it anew if the data or the starting checkpoint has moved."""
        place = cell.start_place
        if place is not None and resolve_checkpoint(place) == Path(place).expanduser():  # a folder, not a hub name
            place = str(Path(place).expanduser().resolve())
        cell = started_at(canonical(cell), place)
        if not self.is_created or self.cell != cell:
            write_json(
                self.folder / "run.json",
                {
                    "train": self.train,
                    "cell": to_dict(cell),
                    "data": store.name if len(store.parts) == 1 else [part.name for part in store.parts],
                    "sha256": store.sha256,
                },
            )

    @property
    def is_created(self) -> bool:
        """True if `run.json` exists. The folder of a released checkpoint has none."""
        return (self.folder / "run.json").exists()

    @property
    def cell(self) -> Cell:
        with located(self.folder / "run.json"):
            return from_dict(Cell, self.meta.cell)

    @property
    def meta(self) -> RunMeta:
        """The content of `run.json`. Raises MuvlaError for a file that no training wrote."""
        return read_model(self.folder / "run.json", RunMeta)

    def store(self) -> EpisodeStore:
        """The dataset that the cell was trained on. Raises MuvlaError if its content has changed."""
        meta = self.meta
        names = [meta.data] if isinstance(meta.data, str) else meta.data
        where = f"{self.folder / 'run.json'}: data"
        store = join([EpisodeStore(self.data / require_name(name, where)) for name in names])
        if store.sha256 != meta.sha256:
            raise MuvlaError(
                f"{self.data}: {store.name}",
                got=f"content {store.sha256[:12]}",
                expected=f"content {meta.sha256[:12]}",
                remedy="restore the dataset; with other data the cell has another train id",
            )
        return store

    # --- training and its checkpoints -------------------------------------------------------------------------------

    @property
    def is_trained(self) -> bool:
        newest = native.latest(self.folder / "checkpoints")
        return newest is not None and newest.name == f"update-{self.cell.budget.updates:06d}"

    def checkpoint(self, parts: tuple[str, ...] = native.FILES) -> native.Checkpoint:
        """The selected checkpoint, with these tensors."""
        if not self.is_trained:
            raise MuvlaError(
                str(self.folder), got="no finished training", expected="a trained cell", remedy="train the cell first"
            )
        return native.load(native.selected(self.folder / "checkpoints"), parts)

    def load_policy(self, device: str = "cpu") -> Policy:
        """The policy of the selected checkpoint."""
        return self._policy_of(self.checkpoint(parts=("model",)), self.folder / "checkpoints", device)

    def load_weights(self, update: int, device: str = "cpu") -> Policy:
        """The policy after an update of its training. Raises MuvlaError if the training has not stored it."""
        folder = self.weights(update)
        if not folder.exists():
            raise MuvlaError(
                str(folder),
                got="no such folder",
                expected=f"the weights after update {update}, which a training stores where its study declares them",
                remedy="train the cell in another folder: `muvla sweep STUDY --runs FOLDER`",
            )
        return self._policy_of(native.load(folder, ("model",)), folder, device)

    def weights(self, update: int) -> Path:
        """The folder of the weights after an update."""
        return self.folder / native.WEIGHTS / native.folder_name(update)

    def _policy_of(self, saved: native.Checkpoint, where: Path, device: str) -> Policy:
        with located(where):
            return load_policy(replace(saved, cell=started_at(saved.cell, self.cell.start.checkpoint))).to(device)

    def trained_on(self) -> TrainedOn:
        """Statistics, training seed and training episodes. Raises MuvlaError if the data's statistics have changed."""
        saved, data = self.checkpoint(parts=()), self.store()
        now = Statistics.from_store(data, saved.cell.data.statistics)
        if now != saved.statistics:
            raise MuvlaError(
                f"{self.data}: {data.name}",
                got=f"statistics {now.id}",
                expected=f"{saved.statistics.id}, those of {self.train}: the data changed since it was trained",
                remedy="restore the dataset, or remove it and collect or import it again",
            )
        return TrainedOn(saved.statistics, saved.cell.seed, tuple(part.seeds for part in data.parts))

    # --- the lock and the failure mark ------------------------------------------------------------------------------

    @property
    def lock(self) -> Path:
        """The lock of the process that works on this cell."""
        return self.folder / "lock"

    @property
    def owner(self) -> Owner | None:
        """The process that works on this cell now."""
        return holder(self.lock)

    @contextlib.contextmanager
    def working(self, marks_failure: bool = True, ranks: Ranks = SINGLE_PROCESS) -> Iterator[None]:
        """Hold the folder's lock; record an error as the cell's failure and raise it again.

        Disk-full, lost-rank and interrupt errors do not mark the cell. A broken invariant always marks it. Only the
        first of several ranks locks and marks.

        Args:
            marks_failure: False for work whose errors say nothing about the cell.
            ranks: processes of this training.
        """
        with contextlib.ExitStack() as stack:
            ranks.on_main(lambda: stack.enter_context(locked(self.lock)))
            ranks.on_main(self._remove_leftovers)
            try:
                yield
            except (Interrupted, DiskError, RankLost):
                raise
            except Exception as error:
                if ranks.is_main and (marks_failure or isinstance(error, NotAMeasurement)):
                    reason = NOT_A_MEASUREMENT if isinstance(error, NotAMeasurement) else "failed"
                    trace = "" if isinstance(error, MuvlaError) else traceback.format_exc()
                    self.fail(reason, f"{type(error).__name__}: {error}", trace)
                raise

    def _remove_leftovers(self) -> None:
        """Remove what killed writers left in the folder. The caller holds the folder's lock."""
        with disk_errors(self.folder):
            for folder in (self.folder, *(self.folder / name for name in FOLDERS)):
                for left in leftovers(folder):
                    left.unlink(missing_ok=True)
            for name in ("checkpoints", native.WEIGHTS):
                native.remove_unfinished(self.folder / name)

    @property
    def failure(self) -> dict[str, str] | None:
        """The mark: `kind`, `error` and `traceback`. Raises MuvlaError for a file that is no mark."""
        path = self.folder / "failure.json"
        if not path.exists():
            return None
        try:
            return msgspec.to_builtins(read_model(path, FailureMark))
        except MuvlaError as error:
            remedy = f"rename {self.folder} to start the cell from nothing; nothing tells whether its numbers count"
            raise MuvlaError(error.field, got=error.got, expected=error.expected, remedy=remedy) from None

    def fail(self, reason: str, error: str, trace: str = "") -> None:
        """Mark the cell: it has no (further) result, and only an explicit retry runs it again."""
        write_json(self.folder / "failure.json", {"kind": reason, "error": error, "traceback": trace})

    def clear_failure(self) -> None:
        """Remove the mark, so that the cell runs again.

        Results after a broken invariant never become measurements. They are set aside, and the cell starts from
        nothing.
        """
        if self.failure is None:
            return
        if self.failure["kind"] == NOT_A_MEASUREMENT:
            aside = self.folder / f"{SET_ASIDE}-{self.set_aside + 1}"
            with disk_errors(aside):
                aside.mkdir()
                for name in ("checkpoints", native.WEIGHTS, "rows", "seals", "chunks", "probes", *LOGS):
                    if (self.folder / name).exists():
                        (self.folder / name).rename(aside / name)
                (self.folder / "failure.json").rename(aside / "failure.json")
        (self.folder / "failure.json").unlink(missing_ok=True)

    @property
    def failure_remedy(self) -> str:
        """The remedy of an error about this run's failure mark."""
        return f"look at {self.folder / 'failure.json'}, and run `muvla sweep … --retry-failed`"

    def require_measurement(self) -> None:
        """Raises MuvlaError if the numbers of this run do not count."""
        if (self.failure or {}).get("kind") == NOT_A_MEASUREMENT:
            raise MuvlaError(
                "RUN",
                got=f"{self.train}, marked {NOT_A_MEASUREMENT!r}",
                expected="a run whose numbers count",
                remedy=self.failure_remedy,
            )

    @property
    def set_aside(self) -> int:
        """How many times the cell was started again from nothing."""
        return len(list(self.folder.glob(f"{SET_ASIDE}-*")))

    # --- provenance and time ----------------------------------------------------------------------------------------

    def record_provenance(
        self,
        device: str,
        simulator: str | None,
        policy: Policy | None = None,
        environment: dict[str, Any] | None = None,
        members: Iterable[str] = (),
        **training: Any,
    ) -> str:
        """Write the provenance of what this process is about to compute.

        Args:
            device: torch device of the policy.
            simulator: backends of the simulator, or None.
            policy: the policy, if the work has one; the record says whether it is compiled.
            environment: facts that the environments report of themselves.
            members: modules of the registered members in use (`muvla.evaluation.members`).
            training: further facts of a training (`cached_vision`, `one_pass`, `ranks`).

        Returns:
            The provenance id.
        """
        compiled = policy is not None and is_compiled(policy)
        record = origin.provenance(device, simulator, compiled, environment, members=members, **training)
        return origin.keep(record, self.folder / "provenance")

    def provenance(self, rows: Iterable[EpisodeRow | TakenMeasurement]) -> dict[str, dict[str, Any]]:
        """The records of this cell's training and of these rows, by provenance id."""
        trained = {timing.provenance for timing in self._timings() if timing.what == "training"}
        return self.provenance_records(trained | {row.provenance for row in rows})

    def provenance_records(self, identities: set[str]) -> dict[str, dict[str, Any]]:
        folder = self.folder / "provenance"
        for identity in identities:
            require_name(identity, str(folder))
        return {identity: read_object(folder / f"{identity}.json") for identity in sorted(identities)}

    @contextlib.contextmanager
    def timed(self, what: str, provenance: str) -> Iterator[None]:
        """Add the wall time of the block to `timings.jsonl`, also if it is stopped.

        A line of 0 seconds comes first, so that the work of a killed process is on record too.
        """
        started, file = time.monotonic(), self.folder / "timings.jsonl"
        append_line(file, {"what": what, "seconds": 0.0, "provenance": provenance})
        try:
            yield
        finally:
            seconds = round(time.monotonic() - started, 1)
            append_line(file, {"what": what, "seconds": seconds, "provenance": provenance})

    def seconds(self) -> dict[str, float]:
        """Wall seconds spent so far on training and on evaluation."""
        total = {"training": 0.0, "evaluation": 0.0}
        for timing in self._timings():
            total[timing.what.partition(" ")[0]] += timing.seconds
        return total

    def _timings(self) -> Iterator[Timing]:
        file = self.folder / "timings.jsonl"
        for number, line in enumerate(read_lines(file), start=1):
            yield decode(line, Timing, f"{file}:{number}")
