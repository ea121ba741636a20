"""The real peers: vla-eval 0.8.0 and openpi-client 0.1.2, each in an environment of its own.

`scripts/setup-peers.sh` makes the environments.
"""

import contextlib
import json
import os
import socket
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helpers.serving import HashSlots, running
from muvla.config import TaskConfig
from muvla.envs.registry import open_env
from muvla.evaluation.actor import Actor
from muvla.evaluation.catalog import get_protocol
from muvla.evaluation.rollout import Rollout
from muvla.serving.foreign_results import read_results
from muvla.serving.gripper import Gripper
from muvla.serving.observation import Needs
from muvla.serving.regime import Regime
from muvla.serving.remote_run import RemoteEvaluator, remote_run
from muvla.serving.remote_server import find_server
from muvla.serving.slots import Slots

PEERS = Path(__file__).parent / "helpers" / "peers"
GL = os.environ.get("MUJOCO_GL", "egl")
PROTOCOL = replace(get_protocol("recall-position3-rh@1"), name="peers", episodes=12, slots=4)
pytestmark = [
    pytest.mark.peers,
    pytest.mark.skipif("MUVLA_PEERS" not in os.environ, reason="MUVLA_PEERS is not set (scripts/setup-peers.sh)"),
]


def python(peer):
    return str(Path(os.environ["MUVLA_PEERS"]) / peer / "bin" / "python")


def run(command, **options):
    environment = os.environ | {
        "PYTHONPATH": str(PEERS),
        "LIBERO_CONFIG_PATH": str(options.get("cwd")),
        "MUJOCO_GL": GL,
    }
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=False, **options)
    print(done.stdout, done.stderr)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextlib.contextmanager
def peer_server(peer, script):
    """The port of a server in the peer's environment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([python(peer), str(PEERS / script), str(port)])
    try:
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait(10)


class Constant(Actor):
    """The peers' policy, in this process."""

    def needs_query(self, episode):
        return True

    def act(self, episodes, ready):
        for episode in ready:
            episode.chunk, episode.chunk_age = np.array([[0.5, -0.25]], dtype=np.float32), 0
        return []


def outcome(row):
    return row.seed, row.choice, row.steps, row.success_once, row.error


@pytest.fixture(scope="module")
def ours():
    outcomes = []
    rollout = Rollout(Constant(PROTOCOL, 4), lambda: open_env(PROTOCOL.task, None))
    rollout.run(range(PROTOCOL.seed, PROTOCOL.seed + PROTOCOL.episodes), outcomes.append)
    rollout.close()
    return sorted((o.seed, o.info["choice"], o.info["steps"], o.info["success_once"], o.error) for o in outcomes)


@pytest.mark.parametrize(
    ("peer", "script"), [("vla-eval", "constant_server.py"), ("openpi-client", "openpi_server.py")]
)
def test_a_peer_server_is_the_policy_of_an_evaluation(peer, script, ours, tmp_path):
    with peer_server(peer, script) as port:
        evaluator = RemoteEvaluator(remote_run(tmp_path, tmp_path, find_server(f"ws://127.0.0.1:{port}")))
        rows = evaluator.evaluate(PROTOCOL, "none")
    print(json.loads((evaluator.run.folder / "server.json").read_text()))
    assert sorted(map(outcome, rows)) == ours


def run_vla_eval(peer, port, benchmark, folder):
    """The line over all tasks of a benchmark whose policy is the server on this port."""
    config, results = folder / "eval.yaml", folder / "results"
    content = {"server": {"url": f"ws://127.0.0.1:{port}"}, "output_dir": str(results), "benchmarks": [benchmark]}
    config.write_text(json.dumps(content))  # JSON is YAML
    vla_eval = [str(Path(python(peer)).with_name("vla-eval")), "run", "--config", str(config)]
    run([*vla_eval, "--no-docker", "--eval-id", "test", "--yes"], cwd=folder)
    (result,) = results.glob("*_aggregate.json")
    (total, *_) = [line for line in read_results(result) if line.task == "all"]
    return total


def test_vla_eval_evaluates_a_served_policy(tmp_path):
    with running(HashSlots(side=8)) as server:
        benchmark = {"benchmark": "mock_benchmark:MockBenchmark", "episodes_per_task": 4}
        total = run_vla_eval("vla-eval", server.port, benchmark, tmp_path)
        slots_free = len(server.gate.sessions._free)
    assert (total.n, total.successes, total.errors) == (12, 12, 0)
    assert slots_free == 8


class Mover(Slots):
    """A policy of LIBERO: 1 to 0 on its last number, as its demonstrations have them. It keeps what it received."""

    count, chunk, recurrent = 2, 1, True
    needs = Needs(cameras=2, proprio=8, reads_proprio=True, side=256)

    def __init__(self):
        self.received, self.starts = [], []

    def config(self):
        return {"slots": self.count, "action": 7, "tasks": ["libero_spatial-0"]}

    def start(self, slot, seed):
        self.starts.append(len(self.received))

    def tick(self, frames, steps):
        self.received += list(frames.values())
        return {slot: np.array([[0.4, 0, 0, 0, 0, 0, 0.0]], dtype=np.float32) for slot in frames}


@pytest.mark.sim("libero")
@pytest.mark.usefixtures("libero_assets")
@pytest.mark.parametrize("suite", ["libero_spatial", "libero_object", "libero_goal"])
def test_vla_evals_libero_sees_and_moves_as_our_libero(suite, tmp_path):
    """Task 0 at initial state 0, three steps. The policy closes; `--gripper closes` makes this the simulator's 1."""
    if not Path(python("vla-eval-libero")).exists():
        pytest.skip("vla-eval and LIBERO in one environment: run scripts/setup-peers.sh with a PYTHON that has LIBERO")
    env = open_env(TaskConfig(f"{suite}-0"), None)
    observations = [env.reset(seed=0)[0]]
    observations += [env.step(np.array([0.4, 0, 0, 0, 0, 0, 0.0], dtype=np.float32))[0] for _ in range(2)]
    env.close()
    slots = Mover()
    with running(slots, Regime(gripper=Gripper("closes", turn=True))) as server:
        benchmark = {"benchmark": "libero_benchmark:LIBEROBenchmark", "episodes_per_task": 1, "max_tasks": 1}
        benchmark |= {"max_steps": 3, "params": {"suite": suite, "env_seed": 0}}
        line = run_vla_eval("vla-eval-libero", server.port, benchmark, tmp_path)
    assert (line.n, line.errors) == (1, 0)
    assert slots.starts == [0] and len(slots.received) == 3
    for ours, theirs in zip(observations, slots.received, strict=True):
        np.testing.assert_array_equal(theirs.images, ours["images"])
        np.testing.assert_allclose(theirs.proprio, ours["proprio"], atol=1e-6)


@pytest.mark.parametrize(("regime", "horizon"), [(Regime(), 1), (Regime("chunk", h=4), 4)])
def test_openpi_client_drives_a_robot_with_a_served_policy(regime, horizon):
    with running(HashSlots(side=8), regime) as server:
        script = str(PEERS / "openpi_robot.py")
        text = run([python("openpi-client"), script, f"ws://127.0.0.1:{server.port}/openpi", str(horizon)])
    assert text.count("OK") == 3
