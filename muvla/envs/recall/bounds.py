"""The best score of a policy that sees the last k frames: exact, by enumeration of every episode.

Before the decision no action is executed, so such a policy knows what its last k frames show at the first frame of the
decision. The score is the expected probability of the likeliest answer given these frames and the instruction. A policy
with k ≥ 2 frames that starts with this answer can keep the answer in the effector's movement, over a right touch too. A
policy with k = 1 cannot, and need not: the discs that are left tell which part of a fixed answer is still to come.

Legend: k frames.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator

from muvla.config import TaskConfig
from muvla.envs.recall.base import Drawn, KeyedDraws, Lengths, RecallTask, Setup, draw_between
from muvla.envs.recall.tasks import RECALL_TASKS
from muvla.errors import MuvlaError

MOST_EPISODES = 200_000  # to enumerate
Answers = dict[Hashable, dict[tuple[int, ...], float]]  # what is seen → answer → probability


class EveryDraw:
    """Draws that take every outcome in turn: a run per path through the tree of outcomes.

    `probability` is that of the path taken. `advance` goes on to the next path, and is False after the last.
    """

    def __init__(self):
        self.path: list[list[int]] = []  # [outcome, number of outcomes] of each draw
        self.restart()

    def restart(self) -> None:
        self.place, self.probability = 0, 1.0

    def advance(self) -> bool:
        while self.path and self.path[-1][0] + 1 == self.path[-1][1]:
            self.path.pop()
        if not self.path:
            return False
        self.path[-1][0] += 1
        self.restart()
        return True

    def integers(self, count: int) -> int:
        if self.place == len(self.path):
            self.path.append([0, count])
        outcome = self.path[self.place][0]
        self.place, self.probability = self.place + 1, self.probability / count
        return outcome

    def permutation(self, count: int) -> tuple[int, ...]:
        left = list(range(count))
        return tuple(left.pop(self.integers(len(left))) for _ in range(count))

    def balanced(self, count: int) -> int:
        return self.integers(count)


def every_episode(task: RecallTask, setup: Setup) -> Iterator[tuple[float, Drawn]]:
    """Yield the probability and the truth of every possible episode.

    Raises MuvlaError for a task with more than MOST_EPISODES.
    """
    draws, more, count = EveryDraw(), True, 0
    while more:
        blank = draw_between(draws, setup.blank)
        lengths = Lengths(blank, draw_between(draws, setup.cue), draw_between(draws, setup.delay))
        drawn = task.draw(draws, setup, lengths)
        yield draws.probability, drawn
        count += 1
        if count > MOST_EPISODES:
            raise MuvlaError(
                "task",
                got=f"{task.name} with {setup}",
                expected=f"at most {MOST_EPISODES} different episodes",
                remedy="estimate the score by `simulated_score`, or shorten task.delay",
            )
        more = draws.advance()


def seen_at_decision(task: RecallTask, setup: Setup, drawn: Drawn, frames: int) -> Hashable:
    """The instruction, and the discs in the last k frames at the first frame of the decision.

    Args:
        task: whose frames are shown.
        setup: of the episode.
        drawn: the truth of the episode.
        frames: k.
    """
    last = drawn.lengths.total
    shown = (tuple(task.shows(drawn, setup, step)) for step in range(max(0, last + 1 - frames), last + 1))
    return task.instruction(drawn), tuple(shown)


def best_answers(config: TaskConfig, frames: int) -> Answers:
    """Everything that a policy with k frames may see at its decision → answer → probability of both."""
    task = RECALL_TASKS[config.name]
    setup = task.setup(config)
    answers: Answers = defaultdict(lambda: defaultdict(float))
    for probability, drawn in every_episode(task, setup):
        answers[seen_at_decision(task, setup, drawn, frames)][drawn.answer] += probability
    return answers


def best_score(config: TaskConfig, frames: int) -> float:
    """The highest expected success of a policy that sees the last k frames. k = 1 is the best memoryless score.

    Raises MuvlaError for a task with more than MOST_EPISODES different episodes.
    """
    return sum(max(of_frames.values()) for of_frames in best_answers(config, frames).values())


def simulated_score(config: TaskConfig, frames: int, episodes: int = 20_000) -> float:
    """An estimate of `best_score` for tasks with more episodes than can be enumerated.

    The likeliest answers are learned on the episodes of even seeds and scored on those of odd seeds. So the estimate is
    the score of one policy, and lies above the best score by sampling alone.
    """
    task = RECALL_TASKS[config.name]
    setup = task.setup(config)
    answers: Answers = defaultdict(lambda: defaultdict(float))
    score = 0
    for parity in (0, 1):
        for seed in range(parity, episodes, 2):
            draws = KeyedDraws(seed, task.name)
            lengths = Lengths(setup.blank[0], draw_between(draws, setup.cue), draw_between(draws, setup.delay))
            drawn = task.draw(draws, setup, lengths)
            answer = answers.get(seen := seen_at_decision(task, setup, drawn, frames))
            if parity == 0:
                answers[seen][drawn.answer] += 1
            elif answer is not None:
                score += max(answer, key=answer.__getitem__) == drawn.answer
    return score / (episodes // 2)
