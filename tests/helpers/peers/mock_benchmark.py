"""A benchmark of vla-eval whose episodes succeed if every action is that of an episode alone. Runs in vla-eval's
environment; its policy is `helpers.serving.HashSlots`."""

import hashlib

import numpy as np
from vla_eval.benchmarks.base import StepBenchmark, StepResult
from vla_eval.specs import IMAGE_RGB, LANGUAGE, RAW

STEPS, CHUNK = 6, 4


def frame(seed):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (1, 8, 8, 3), dtype=np.uint8)[0], rng.standard_normal(3).astype(np.float32)


def expected(memory, image, state, text, step):
    """The policy's next memory, and its action."""
    parts = (memory, image[None].tobytes(), state.tobytes(), text.encode(), str(step).encode())
    memory = hashlib.blake2b(b"|".join(parts), digest_size=16).digest()
    numbers = np.frombuffer(hashlib.blake2b(memory, digest_size=CHUNK * 2).digest(), dtype=np.uint8)
    return memory, (numbers.astype(np.float32) / 255).reshape(CHUNK, 2)[0]


class MockBenchmark(StepBenchmark):
    def get_tasks(self):
        return [{"name": f"task {i}", "suite": "mock", "seed": i} for i in range(3)]

    def reset(self, task):
        self.number, self.at, self.good, self.memory = task["seed"], 0, True, str(task["seed"]).encode()
        return

    def step(self, action):
        image, state = frame(100 * self.number + self.at)
        self.memory, right = expected(self.memory, image, state, "touch it", self.at)
        self.good &= bool(np.array_equal(action["actions"], right))
        self.at += 1
        return StepResult(obs=None, reward=0.0, done=self.at >= STEPS, info={})

    def make_obs(self, raw_obs, task):
        image, state = frame(100 * self.number + self.at)
        return {"images": {"front": image}, "task_description": "touch it", "state": state}

    def get_step_result(self, step_result):
        return {"success": self.good and self.at == STEPS}

    def get_action_spec(self):
        return {"actions": RAW}

    def get_observation_spec(self):
        return {"image": IMAGE_RGB, "language": LANGUAGE, "state": RAW}

    def get_metadata(self):
        return {"max_steps": STEPS}
