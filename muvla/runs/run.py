"""The folder of one train id: configuration, provenance, checkpoints, training log and episode rows.

    runs/<train id>/
      run.json            the canonical cell, the folder of its dataset, or those of its mixture, and their content hash
      provenance/<id>.json
      checkpoints/        see muvla.checkpoints.native
      train.jsonl         a line every few updates
      rows/               see muvla.evaluation.results
      probes/             see muvla.runs.probe
      failure.json        why the cell has no (further) result; absent otherwise
      timings.jsonl       wall time and provenance of every training and evaluation
      set-aside-1/        what was no measurement, after a retry
      lock                held by whoever works on it

What is finished is read off these files; there is no second account of it that could disagree.
"""

from __future__ import annotations

import contextlib
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from muvla.checkpoints import native as ckpt
from muvla.checkpoints.build import prompts_of
from muvla.checkpoints.hub import checkpoint_folder
from muvla.config import Cell, canonical, started_at, train_id
from muvla.config.serialization import from_dict, to_dict
from muvla.data.mixture import join
from muvla.data.normalization import Statistics
from muvla.data.store import EpisodeStore
from muvla.envs.registry import backends, open_env
from muvla.errors import DiskError, Interrupted, MuvlaError, NotAMeasurement, RankLost
from muvla.evaluation.donor_recording import with_donors
from muvla.evaluation.evaluate import evaluate
from muvla.evaluation.prefix_cache import PrefixCache
from muvla.evaluation.protocol import Protocol
from muvla.evaluation.records import EpisodeRow, TakenMeasurement, result_id
from muvla.evaluation.replay import ReplayedEpisode, WatchedRollout
from muvla.evaluation.results import Results
from muvla.interventions import parse_intervention
from muvla.models.compilation import compile_step, is_compiled
from muvla.models.policy import Policy
from muvla.runs.probe import Probing
from muvla.training.distributed.base import SINGLE_PROCESS, Ranks
from muvla.training.interface import get_interface
from muvla.training.oom import memory_explained
from muvla.training.options import DEFAULT, TrainingOptions
from muvla.training.run import Progress, train_to_the_end
from muvla.training.trainer import Trainer
from muvla.training.vision_cache import cache_vision
from muvla.utils import provenance as origin
from muvla.utils.io import append_line, disk_errors, holder, locked, read_json, read_lines, write_json

NOT_A_MEASUREMENT = "not a measurement"  # kind of a failure after which no number of the cell counts
SET_ASIDE = "set-aside"  # folders of what was not a measurement, numbered


def never() -> bool:
    return False


@dataclass(frozen=True)
class Run(Probing, Results):
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

    def create(self, cell: Cell, store: EpisodeStore) -> None:
        """Writes `run.json`; anew if its data or what the cell starts from has moved."""
        place = cell.start.checkpoint
        if place is not None and checkpoint_folder(place) == Path(place).expanduser():  # and none of the hub
            place = str(Path(place).expanduser().resolve())
        cell = started_at(canonical(cell), place)
        if not (self.folder / "run.json").exists() or self.cell != cell:
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
    def cell(self) -> Cell:
        return from_dict(Cell, self._meta["cell"])

    @property
    def _meta(self) -> dict[str, Any]:
        return read_json(self.folder / "run.json")

    def store(self) -> EpisodeStore:
        """The dataset that the cell was trained on; raises MuvlaError if its content is another one now."""
        names = self._meta["data"]
        store = join([EpisodeStore(self.data / name) for name in ([names] if isinstance(names, str) else names)])
        if store.sha256 != self._meta["sha256"]:
            raise MuvlaError(
                f"{self.data}: {store.name}",
                got=f"content {store.sha256[:12]}",
                expected=f"content {self._meta['sha256'][:12]}",
                remedy="restore the dataset; with other data the cell has another train id",
            )
        return store

    # --- what is finished ------------------------------------------------------------------------------------------

    @property
    def is_trained(self) -> bool:
        newest = ckpt.latest(self.folder / "checkpoints")
        return newest is not None and newest.name == f"update-{self.cell.budget.updates:06d}"

    @property
    def failure(self) -> dict[str, Any] | None:
        path = self.folder / "failure.json"
        return read_json(path) if path.exists() else None

    # --- doing it ---------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def working(self, marks_failure: bool = True, ranks: Ranks = SINGLE_PROCESS) -> Iterator[None]:
        """Holds the folder's lock; an error is recorded as the cell's failure, unless told otherwise, and raised
        again. A full disk, a lost rank and a stop are nobody's failure; a broken invariant always is the cell's. Of
        several ranks the first does so for all."""
        with contextlib.ExitStack() as stack:
            ranks.on_main(lambda: stack.enter_context(locked(self.folder / "lock")))
            try:
                yield
            except (Interrupted, DiskError, RankLost):
                raise
            except Exception as error:
                if ranks.is_main and (marks_failure or isinstance(error, NotAMeasurement)):
                    kind = NOT_A_MEASUREMENT if isinstance(error, NotAMeasurement) else "failed"
                    trace = "" if isinstance(error, MuvlaError) else traceback.format_exc()
                    self.fail(kind, f"{type(error).__name__}: {error}", trace)
                raise

    def fail(self, kind: str, error: str, trace: str = "") -> None:
        """Mark the cell: it has no (further) result and is not run again unless told."""
        write_json(self.folder / "failure.json", {"kind": kind, "error": error, "traceback": trace})

    def clear_failure(self) -> None:
        """Take the mark away, so that the cell is run again. What a broken invariant made is no measurement for ever:
        it is set aside, and the cell starts from nothing."""
        if self.failure is None:
            return
        if self.failure["kind"] == NOT_A_MEASUREMENT:
            aside = self.folder / f"{SET_ASIDE}-{self.set_aside + 1}"
            with disk_errors(aside):
                aside.mkdir()
                for name in ("checkpoints", "rows", "chunks", "probes", "train.jsonl", "timings.jsonl"):
                    if (self.folder / name).exists():
                        (self.folder / name).rename(aside / name)
                (self.folder / "failure.json").rename(aside / "failure.json")
        (self.folder / "failure.json").unlink(missing_ok=True)

    @property
    def way_out(self) -> str:
        """Of a mark, for whoever asks for its numbers."""
        return f"look at {self.folder / 'failure.json'}, and run `muvla sweep … --retry-failed`"

    @cached_property
    def _statistics(self) -> dict[tuple[str, str], Statistics]:
        """Of the data, by content and actions, as this object has taken them."""
        return {}

    @property
    def set_aside(self) -> int:
        """How often the cell was started from nothing again."""
        return len(list(self.folder.glob(f"{SET_ASIDE}-*")))

    @property
    def owner(self) -> int | None:
        """Process id of whoever works on this cell now."""
        return holder(self.folder / "lock")

    def train_cell(
        self,
        cell: Cell,
        store: EpisodeStore,
        device: str,
        progress: Callable[[Progress], None] = lambda _: None,
        should_stop: Callable[[], bool] = never,
        options: TrainingOptions = DEFAULT,
        ranks: Ranks = SINGLE_PROCESS,
    ) -> None:
        """Train to the end, or continue; raises Interrupted with a fresh checkpoint when asked to stop."""
        ranks.on_main(lambda: self.create(cell, store))
        if ranks.on_main(lambda: self.is_trained):
            return
        with ranks.raise_together(long_running=True):  # every byte is read, by some from a slower disk
            store.verify()
        ranks.assert_equal("muvla's code", origin.CODE_VERSION)
        ranks.assert_equal("data and start", self.train)
        wanted, recompute = canonical(cell), options.checkpoint_gradients
        interface = get_interface(store, prompts_of(wanted), wanted)
        with memory_explained(wanted, interface, recompute, ranks.size):
            trainer = Trainer(wanted, store, parse_intervention(wanted.intervention), device, recompute, ranks)
        with ranks.raise_together():
            self._require_same_start(trainer)
            if options.compiled:
                compile_step(trainer.policy)
        if options.cached_vision:
            cache_vision(trainer, self.root)
        with self._timed_training(device, store, trainer, options) if ranks.is_main else contextlib.nullcontext():
            train_to_the_end(trainer, self.folder, progress, should_stop, options)
        if trainer.update < trainer.cell.budget.updates:
            raise Interrupted

    def _timed_training(
        self, device: str, store: EpisodeStore, trainer: Trainer, options: TrainingOptions
    ) -> AbstractContextManager[None]:
        cached = options.cached_vision and device != "cpu"  # on a CPU they are the towers' own features, bit for bit
        return self._timed(
            "training",
            self._record(
                device, store.simulator, trainer.policy, cached_vision=cached, ranks=trainer.ranks.description
            ),
        )

    def _require_same_start(self, trainer: Trainer) -> None:
        """What this process has read is what the train id was made of: a folder, or a branch of the hub, may have
        changed in the meantime."""
        own = train_id(trainer.cell, trainer.stream.store.sha256, trainer.start)
        if trainer.start is not None and own != self.train:
            raise MuvlaError(
                f"start.checkpoint {trainer.cell.start.checkpoint}",
                got=f"content {trainer.start} (train id {own})",
                expected=f"the content that train id {self.train} was made of",
                remedy="it changed since the sweep began: plan it again, and on the hub name a revision (@…)",
            )

    def evaluate(
        self,
        protocol: Protocol,
        intervention_name: str,
        device: str,
        policy: Policy | None = None,
        should_stop: Callable[[], bool] = never,
        retry_errors: bool = False,
        workers: int | None = None,
    ) -> list[EpisodeRow]:
        """The rows of one condition, running the episodes that are missing, and those with an error if told, in
        `workers` environments side by side. Raises NeverFired for an intervention that acts in none."""
        if never_fired := self.never_fired(protocol, intervention_name):
            raise never_fired
        if not self.has_result(protocol, intervention_name, without_errors=retry_errors):
            self._require_same_simulator(protocol, intervention_name)
            statistics, training_seed, training_episodes = self._trained_with()
            policy, check = policy or self.load_policy(device), lambda: _stop_if(should_stop)
            shared = self._branches.of(protocol.hash)

            @contextlib.contextmanager
            def record(environment: dict[str, Any]) -> Iterator[str]:
                provenance = self._record(device, backends(protocol.task), policy, environment)
                with self._timed(f"evaluation {protocol.id} {intervention_name}", provenance):
                    yield provenance

            evaluate(
                policy,
                statistics,
                protocol,
                parse_intervention(intervention_name),
                train=self.train,
                training_seed=training_seed,
                training_episodes=training_episodes,
                rows=self.rows,
                record=record,
                check_stop=check,
                retry_errors=retry_errors,
                workers=workers,
                chunks=self.folder / "chunks",
                branches=shared,
                donors=lambda kind: with_donors(
                    kind.name, policy, statistics, protocol, shared.donors, check, workers, record=record
                ),
            )
        return self.result_rows(protocol, intervention_name)

    @cached_property
    def _branches(self) -> PrefixCache:
        return PrefixCache()

    def _require_same_simulator(self, protocol: Protocol, intervention_name: str) -> None:
        measured = [row for row in self.result_rows(protocol, intervention_name) if row.error is None]
        for identity, record in self._records({row.provenance for row in measured}).items():
            if record["simulator"] != (here := backends(protocol.task)):
                raise MuvlaError(
                    f"rows of {self.train}, {protocol.id}, {intervention_name}",
                    got=f"simulator {here}",
                    expected=f"{record['simulator']}, as of provenance/{identity}.json",
                    remedy="go on where they were made, or remove "
                    f"{self.rows / result_id(self.train, protocol, intervention_name)}.jsonl, and all are run here",
                )

    def watch(
        self,
        protocol: Protocol,
        intervention_name: str,
        seed: int,
        policy: Policy,
        should_stop: Callable[[], bool] = never,
        workers: int | None = None,
    ) -> tuple[ReplayedEpisode, Statistics]:
        """The episode of this seed, run now at the protocol's batch shape, and the scale of its actions. Writes
        nothing. Donors that this object has not recorded yet are, in `workers` environments side by side."""
        _stop_if(should_stop)
        statistics, _, _ = self._trained_with()
        check, donors = lambda: _stop_if(should_stop), self._branches.of(protocol.hash).donors
        rollout = WatchedRollout(
            policy,
            statistics,
            protocol,
            lambda: open_env(protocol.task, protocol.image_size),
            with_donors(intervention_name, policy, statistics, protocol, donors, check, workers),
            environments=1,
        )
        try:
            return rollout.watch(seed, check), statistics
        finally:
            rollout.close()

    def _trained_with(self) -> tuple[Statistics, int | None, tuple[range, ...]]:
        """Statistics, training seed and, by dataset, the episodes that the demonstrations were drawn from.
        Raises MuvlaError if the data do not have these statistics any more."""
        saved, data = self.checkpoint(parts=()), self.store()
        of = data.sha256, saved.cell.data.statistics
        if of not in self._statistics:  # once for all protocols and interventions
            self._statistics[of] = Statistics.of(data, saved.cell.data.statistics)
        now = self._statistics[of]
        if now != saved.statistics:
            raise MuvlaError(
                f"{self.data}: {data.name}",
                got=f"statistics {now.id}",
                expected=f"{saved.statistics.id}, those of {self.train}: the data changed since it was trained",
                remedy="restore the dataset, or remove it and collect or import it again",
            )
        return saved.statistics, saved.cell.seed, tuple(part.seeds for part in data.parts)

    @contextlib.contextmanager
    def _timed(self, what: str, provenance: str) -> Iterator[None]:
        """Adds the wall time of the block to `timings.jsonl`, also when it is stopped; that it began stands there
        first, for a process that is killed."""
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
        for line in read_lines(self.folder / "timings.jsonl"):
            total[line["what"].split()[0]] += line["seconds"]
        return total

    def checkpoint(self, parts: tuple[str, ...] = ckpt.FILES) -> ckpt.Checkpoint:
        """The selected one, with these tensors."""
        if not self.is_trained:
            raise MuvlaError(
                str(self.folder), got="no finished training", expected="a trained cell", remedy="train the cell first"
            )
        return ckpt.load(ckpt.selected(self.folder / "checkpoints"), parts)

    def load_policy(self, device: str) -> Policy:
        saved = self.checkpoint(parts=("model",))
        place = self.cell.start.checkpoint
        return ckpt.load_policy(replace(saved, cell=started_at(saved.cell, place))).to(device)

    def _record(
        self, device: str, backends: str | None, policy: Policy, environment: dict[str, Any] | None = None, **training
    ) -> str:
        record = origin.provenance(device, backends, is_compiled(policy), environment, **training)
        return origin.keep(record, self.folder / "provenance")

    def provenance(self, rows: Iterable[EpisodeRow | TakenMeasurement]) -> dict[str, dict[str, Any]]:
        """The records of what trained this cell and of what measured these, by provenance id."""
        trained = {one["provenance"] for one in read_lines(self.folder / "timings.jsonl") if one["what"] == "training"}
        return self._records(trained | {row.provenance for row in rows})

    def _records(self, identities: set[str]) -> dict[str, dict[str, Any]]:
        return {one: read_json(self.folder / "provenance" / f"{one}.json") for one in sorted(identities)}


def _stop_if(should_stop: Callable[[], bool]) -> None:
    if should_stop():
        raise Interrupted
