"""Evaluate the policy of a run: the missing episodes of a condition, or one recorded episode again."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

from muvla.data.normalization import Statistics
from muvla.envs.registry import backends
from muvla.errors import Interrupted, MuvlaError
from muvla.evaluation.context import EvaluationContext
from muvla.evaluation.donor_recording import with_donors
from muvla.evaluation.evaluate import EvaluationRequest, evaluate
from muvla.evaluation.members import modules_in_use
from muvla.evaluation.policy_actor import PolicyActor
from muvla.evaluation.prefix_cache import PrefixCache
from muvla.evaluation.protocol import Protocol
from muvla.evaluation.recorder import Recorder
from muvla.evaluation.records import EpisodeRow
from muvla.evaluation.replay import ReplayedEpisode, replay
from muvla.interventions import parse_intervention
from muvla.models.compilation import compile_step, is_compiled
from muvla.models.policy import Policy
from muvla.runs.results import has_result, never_fired, result_rows, row_file
from muvla.runs.run import Run, TrainedOn


class Evaluator:
    """One policy of a run, under any number of conditions.

    Conditions share the loaded policy, the facts of its training, the computed beginnings of episodes and the recorded
    donors. Without a `policy`, the run's policy is loaded when an episode first needs it.

    Example:
        rows = Evaluator(run).evaluate(get_protocol("recall-position3-rh@1"), "none")
    """

    is_local = True  # False for a policy that another process serves: its memory and weights are not here

    def __init__(
        self,
        run: Run,
        device: str = "cpu",
        policy: Policy | None = None,
        should_stop: Callable[[], bool] = lambda: False,
        update: int | None = None,
    ):
        """An evaluator of the run's policy.

        Args:
            run: the run.
            device: torch device of the policy.
            policy: the policy, if it is loaded already.
            should_stop: asked after every episode.
            update: evaluate the weights after this update of the training; None for the selected checkpoint.
        """
        self.run, self.device, self.should_stop, self.update = run, device, should_stop, update
        self.prefixes = PrefixCache()
        if policy is not None:
            self.policy = policy

    @cached_property
    def policy(self) -> Policy:
        if self.update is not None:
            return self.run.load_weights(self.update, self.device)
        return self.run.load_policy(self.device)

    def at(self, update: int | None) -> Evaluator:
        """The evaluator of the weights after an update; compiled where this evaluator's policy is compiled."""
        if update == self.update:
            return self
        other = Evaluator(self.run, self.device, None, self.should_stop, update)
        if "policy" in self.__dict__ and is_compiled(self.policy):
            compile_step(other.policy)
        return other

    @cached_property
    def trained_on(self) -> TrainedOn:
        return self.run.trained_on()

    def check_stop(self) -> None:
        """Raises Interrupted if a stop is asked for."""
        if self.should_stop():
            raise Interrupted

    def evaluate(
        self, protocol: Protocol, intervention: str, retry_errors: bool = False, workers: int | None = None
    ) -> list[EpisodeRow]:
        """The rows of one condition; episodes without a row are run first.

        Args:
            protocol: the protocol.
            intervention: canonical name of the intervention, or "none".
            retry_errors: also run episodes again whose last attempt ended in an error.
            workers: environments side by side; by default as many as fit.

        Returns:
            The last attempt of every episode.

        Raises:
            NeverFired: the intervention fired in no episode.
            NotAMeasurement: an invariant broke; the rows are set aside.
            Interrupted: a stop was asked for; the rows so far are on disk.
            MuvlaError: the protocol or the intervention does not fit the policy, or the training has not stored the
                weights after the protocol's update.
        """
        run = self.run
        if error := never_fired(run, protocol, intervention):
            raise error
        if not has_result(run, protocol, intervention, without_errors=retry_errors):
            require_same_simulator(run, protocol, intervention)
            self.at(protocol.update)._run_missing(protocol, intervention, retry_errors, workers)
        return result_rows(run, protocol, intervention)

    def _run_missing(self, protocol: Protocol, intervention: str, retry_errors: bool, workers: int | None) -> None:
        trained_on, policy = self.trained_on, self.policy
        members = modules_in_use(policy, [protocol.task.name], parse_intervention(intervention))

        @contextlib.contextmanager
        def record(environment: dict[str, Any]) -> Iterator[str]:
            simulator = backends(protocol.task)
            provenance = self.run.record_provenance(self.device, simulator, policy, environment, members)
            with self.run.timed(f"evaluation {protocol.id} {intervention}", provenance):
                yield provenance

        request = EvaluationRequest(
            policy,
            trained_on.statistics,
            protocol,
            parse_intervention(intervention),
            self.run.train,
            trained_on.seed,
            trained_on.episodes,
            retry_errors,
        )
        context = EvaluationContext(record, self.check_stop, workers, cache=self.prefixes)
        evaluate(request, self.run.folder, context)

    def replay(
        self, protocol: Protocol, intervention: str, seed: int, workers: int | None = None
    ) -> tuple[ReplayedEpisode, Statistics]:
        """Run the episode of this seed again, at the protocol's batch shape. Nothing is written.

        Args:
            protocol: the protocol.
            intervention: canonical name of the intervention, or "none".
            seed: the episode's environment seed.
            workers: environments side by side while donors are recorded that this object lacks.

        Returns:
            The episode step by step, and the statistics that scale its actions.
        """
        episodes = self.replay_all(protocol, intervention, [seed], workers)
        return episodes[seed], self.trained_on.statistics

    def replay_all(
        self,
        protocol: Protocol,
        intervention: str,
        seeds: Sequence[int],
        workers: int | None = None,
        recorders: Sequence[Recorder] = (),
    ) -> dict[int, ReplayedEpisode]:
        """Run the episodes of these seeds again, at the protocol's batch shape. Nothing is written.

        Args:
            protocol: the protocol.
            intervention: canonical name of the intervention, or "none".
            seeds: environment seeds of the episodes, at most one per slot of the protocol.
            workers: environments side by side while donors are recorded that this object lacks.
            recorders: more recorders of the same episodes.

        Returns:
            Seed → the episode step by step.
        """
        self.check_stop()
        if protocol.update != self.update:
            return self.at(protocol.update).replay_all(protocol, intervention, seeds, workers, recorders)
        statistics = self.trained_on.statistics
        context = EvaluationContext(check_stop=self.check_stop, workers=workers, cache=self.prefixes)
        bound = with_donors(parse_intervention(intervention), self.policy, statistics, protocol, context)
        actor = PolicyActor(self.policy, statistics, protocol, bound)
        return replay(actor, context.make_env(protocol), seeds, len(seeds), self.check_stop, recorders)


def require_same_simulator(run: Run, protocol: Protocol, intervention: str) -> None:
    """Raises MuvlaError if rows of this condition were measured with another simulator than the one here."""
    measured = {row.provenance for row in result_rows(run, protocol, intervention) if row.error is None}
    for identity, record in run.provenance_records(measured).items():
        here = backends(protocol.task)
        if record["simulator"] != here:
            raise MuvlaError(
                f"rows of {run.train}, {protocol.id}, {intervention}",
                got=f"simulator {here}",
                expected=f"{record['simulator']}, as in provenance/{identity}.json",
                remedy="continue on the machine that wrote these rows, or remove "
                f"{row_file(run, protocol, intervention)} to run all episodes here",
            )
