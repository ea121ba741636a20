"""The parts of a tuning: study, space, sampler, rungs, and the seeds and episodes that no evaluation uses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from muvla.config.serialization import flatten
from muvla.config.serialization import replace as with_fields
from muvla.errors import MuvlaError, unknown_name
from muvla.evaluation.catalog import declared_protocols
from muvla.evaluation.protocol import Protocol
from muvla.training.run import LOG_EVERY
from sweeps.cells import StudyCell
from sweeps.checks import require_declared_differences, require_fitting, require_known_tasks
from sweeps.study import SEED, Study
from sweeps.tune.samplers import SAMPLERS, ask_tpe, grid_points, sobol_points
from sweeps.tune.space import Dimension, Recipe
from sweeps.tune.trials import TrialRow

BLOCK = range(3_141_592_653, 3_141_692_653)  # episode seeds of tunings; recall-position3-search@1 has the first 200
SEEDS = 2  # training seeds of a tuning by default
FIRST_SEED = 100


@dataclass(frozen=True)
class Tuning:
    """One tuning of a study's recipe.

    Attributes:
        study: the study; its variants are tuned, its training seeds and protocols are not touched.
        space: the tuned fields.
        trials: trials per variant; None takes all points of a grid.
        sampler: `sobol`, `grid` or `tpe`.
        batch: trials of a variant that `tpe` asks at once.
        rungs: shares of a training after which the worse trials of a batch are pruned by their training loss.
        keep: share of a variant's trials that continues after a rung.
        protocol: the evaluation whose success is the objective.
        seeds: training seeds of the trials.
        seed: seed of the sampler.
    """

    study: Study
    space: tuple[Dimension, ...]
    protocol: Protocol
    seeds: tuple[int, ...]
    trials: int | None = None
    sampler: str = "sobol"
    batch: int = 4
    rungs: tuple[float, ...] = ()
    keep: float = 0.5
    seed: int = 0

    def __post_init__(self):
        if self.sampler not in SAMPLERS:
            raise unknown_name("--sampler", self.sampler, SAMPLERS)
        if (self.trials is None) != (self.sampler == "grid"):
            raise MuvlaError(
                "--trials",
                got=self.trials,
                expected="no number with --sampler grid, which has all combinations, and a number with every other",
                remedy="leave --trials out" if self.sampler == "grid" else "set --trials, for example --trials 16",
            )
        for option, value in (("--trials", self.trials), ("--batch", self.batch)):
            if value is not None and value < 1:
                raise MuvlaError(option, got=value, expected="at least 1", remedy=f"set {option} to 1 or more")
        rungs = list(self.rungs)
        if rungs != sorted(set(rungs)) or not all(0 < rung < 1 for rung in rungs):
            raise MuvlaError(
                "--rungs", got=rungs, expected="rising shares in (0, 1)", remedy="for example --rungs 0.25,0.5"
            )
        if not 0 < self.keep <= 1:
            raise MuvlaError("--keep", got=self.keep, expected="a share in (0, 1]", remedy="for example --keep 0.5")
        require_unseen(self.study, self.protocol, self.seeds)

    @property
    def variants(self) -> tuple[str, ...]:
        return tuple(self.study.variants)

    def recipes(self, rows: Sequence[TrialRow]) -> dict[str, list[Recipe]]:
        """Variant → recipes of the next batch, given the rows of the finished batches; empty lists at the end."""
        done = {variant: [row for row in rows if row.variant == variant] for variant in self.variants}
        if self.sampler == "tpe":
            batches = {}
            for variant, finished in done.items():
                count = min(self.batch, self.trials - len(finished))
                batches[variant] = ask_tpe(self.space, finished, count, self.seed, variant) if count > 0 else []
            return batches
        every = grid_points(self.space) if self.sampler == "grid" else sobol_points(self.space, self.trials, self.seed)
        return {variant: [] if finished else every for variant, finished in done.items()}

    def cells(self, variant: str, recipe: Recipe) -> list[StudyCell]:
        """The cells of a trial, by training seed."""
        changes = {**self.study.variants[variant], **recipe}
        base = self.study.base
        return [StudyCell(variant, with_fields(base, {**changes, SEED: seed})) for seed in self.seeds]

    def study_of(self, trials: dict[str, tuple[str, Recipe]]) -> Study:
        """The trials as a study: name of a trial → (variant, recipe). Its cells are cells of the ledger."""
        fields = tuple(dimension.name for dimension in self.space)
        return replace(
            self.study,
            name=f"{self.study.name}_tune",
            variants={name: {**self.study.variants[variant], **recipe} for name, (variant, recipe) in trials.items()},
            factors=(*self.study.factors, *fields),
            seeds=self.seeds,
            protocols=(self.protocol,),
            interventions=(),
            probes=(),
            predictions=(),
            contrasts=type(self.study.contrasts)(),
            time_to_learn=None,
        )

    def check(self, trials: Study) -> None:
        """Refuses trials that cannot run, before any training. Raises MuvlaError.

        Unlike `Study.check`, two trials may be one computation: they share the ledger's cell.
        """
        where, cells = f"tuning of {self.study.name}", trials.cells()
        require_known_tasks(trials.every_protocol, cells)
        require_fitting(where, trials.protocols, trials.every_protocol, cells)
        require_declared_differences(where, trials.base, (*trials.factors, SEED), cells)
        for rung in self.rungs:
            for item in cells:
                updates = item.cell.effective_budget.updates
                if int(rung * updates) < LOG_EVERY:
                    raise MuvlaError(
                        "--rungs",
                        got=f"{rung:g} of {updates} updates",
                        expected=f"at least {LOG_EVERY} updates, after which the training log has its first line",
                        remedy="take later rungs, or train longer",
                    )
        self._require_comparable_losses()

    def _require_comparable_losses(self) -> None:
        """Pruning compares training losses, so no trial may change what the loss measures."""
        scales = ("data.", "model.")
        changed = [d.name for d in self.space if d.name.startswith(scales)]
        if self.rungs and changed:
            raise MuvlaError(
                "--rungs",
                got=f"rungs while {', '.join(changed)} is tuned",
                expected="no rungs where trials differ in data or model: their training losses are not comparable",
                remedy="leave --rungs out",
            )


def default_seeds(study: Study) -> tuple[int, ...]:
    """The first training seeds from 100 on that the study does not use."""
    free = (seed for seed in range(FIRST_SEED, FIRST_SEED + SEEDS + len(study.seeds)) if seed not in study.seeds)
    return tuple(seed for seed, _ in zip(free, range(SEEDS), strict=False))


def default_protocol(study: Study, episodes: int | None = None) -> Protocol:
    """The study's first protocol on the episode block of tunings.

    Args:
        study: the study.
        episodes: number of episodes; None keeps the protocol's.
    """
    first = study.protocols[0]
    return replace(first, name=f"{first.name}-tune", seed=BLOCK.start, episodes=episodes or first.episodes)


def require_unseen(study: Study, protocol: Protocol, seeds: Sequence[int]) -> None:
    """Raises MuvlaError if the objective would use training seeds of the study, or episodes of any evaluation."""
    if used := sorted(set(seeds) & set(study.seeds)):
        raise MuvlaError(
            "--seeds",
            got=f"training seeds {', '.join(map(str, used))} of study {study.name}",
            expected="training seeds that the study does not use",
            remedy=f"for example --seeds {','.join(map(str, default_seeds(study)))}",
        )
    if not seeds or len(set(seeds)) < len(seeds):
        raise MuvlaError("--seeds", got=list(seeds), expected="each seed once", remedy="list one seed or more")
    others = [other for other in declared_protocols().values() if other.seed not in BLOCK]
    for other in [*study.every_protocol, *others]:
        if max(other.seed, protocol.seed) < min(other.seed + other.episodes, protocol.seed + protocol.episodes):
            raise MuvlaError(
                "--protocol",
                got=f"{protocol.id}, whose episodes are those of {other.id}",
                expected="episodes that no evaluation uses: a recipe that is chosen on the test's episodes is a result "
                "of the test",
                remedy=f"leave --protocol out: the tuning then plays {study.protocols[0].id} from episode seed "
                f"{BLOCK.start} on",
            )


def describe_base(study: Study, space: Sequence[Dimension]) -> dict[str, Any]:
    """The values that the tuned fields have in the study's base."""
    fields = flatten(study.base)
    return {dimension.name: fields[dimension.name] for dimension in space}
