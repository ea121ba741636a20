"""A policy server as the policy of an evaluation: the same rows, and error rows for whatever a server breaks."""

import asyncio
import threading
from dataclasses import replace

import numpy as np
import pytest
from aiohttp import web

from helpers.serving import running
from muvla.envs.registry import open_env
from muvla.envs.workers import LocalEnv
from muvla.errors import MuvlaError
from muvla.evaluation.catalog import get_protocol
from muvla.evaluation.evaluate import evaluate_policy
from muvla.evaluation.records import OUTCOME_FIELDS
from muvla.probes.base import ScheduledMeasurement
from muvla.probes.registry import get_probe
from muvla.runs.conditions import evaluate_conditions, evaluate_grid
from muvla.runs.probe import take_measurement
from muvla.runs.replay import replay_episode
from muvla.serving.codec import decode_message, encode_message
from muvla.serving.regime import Regime
from muvla.serving.remote_actor import RemoteActor
from muvla.serving.remote_run import RemoteEvaluator, remote_run
from muvla.serving.remote_server import find_server
from muvla.serving.sessions import Limits
from muvla.serving.slots import PolicySlots

PROTOCOL = replace(get_protocol("recall-position3-rh@1"), name="served", episodes=5, slots=3)
PATHS = ("ws://{}/", "ws://{}/openpi", "http://{}")


def slots_of(trained, count=3):
    return PolicySlots(trained.policy, trained.statistics, count)


@pytest.fixture(scope="module")
def server(trained):
    with running(slots_of(trained), limits=Limits(window=0.002, silence=0.5)) as serving:
        yield f"127.0.0.1:{serving.port}"


@pytest.fixture(scope="module")
def ours(trained):
    return evaluate_policy(trained.policy, trained.statistics, PROTOCOL)


def evaluator_of(address, root, **options):
    return RemoteEvaluator(remote_run(root / "runs", root / "data", find_server(address, **options)))


def outcomes(rows):
    return [[getattr(row, name) for name in ("seed", "error", *OUTCOME_FIELDS)] for row in rows]


@pytest.mark.parametrize("path", PATHS)
def test_a_served_policy_has_the_rows_of_the_policy(server, ours, path, tmp_path):
    evaluator = evaluator_of(path.format(server), tmp_path)
    (result,) = evaluate_conditions(evaluator, {"served": [PROTOCOL]}, ["none"], lambda _: None)
    rows = evaluator.evaluate(PROTOCOL, "none")  # from the file
    assert outcomes(sorted(rows, key=lambda row: row.seed)) == outcomes(ours)
    assert result.summary.episodes == 5 and rows[0].train == evaluator.run.train and rows[0].training_seed is None
    file, steps = replay_episode(evaluator, PROTOCOL, "none", 1, tmp_path / "episode.mp4")
    assert file.exists() and steps == ours[1].steps


def test_the_id_is_the_hash_of_what_the_server_says_without_its_address(server, trained, tmp_path):
    first = find_server(f"ws://{server}/")
    with running(slots_of(trained)) as again, running(slots_of(trained), Regime("chunk", h=2)) as another:
        same, other = (find_server(f"ws://127.0.0.1:{port}/") for port in (again.port, another.port))
    assert first.train == same.train != other.train


def test_a_server_of_chunks_takes_the_grid_of_chunk_lengths(trained, tmp_path):
    with running(slots_of(trained), Regime("chunk", h=4)) as chunks:
        evaluator = evaluator_of(f"ws://127.0.0.1:{chunks.port}/", tmp_path)
        grid = get_probe("chunk-length", PROTOCOL)
        points = {dict(r.point.coordinates)["h"]: r for r in evaluate_grid(evaluator, grid, lambda _: None)}
    assert sorted(points) == [1, 2, 4, 8, 16] and all(r.summary.errors == 0 for r in points.values())
    protocol = points[2].point.protocol
    local = evaluate_policy(trained.policy, trained.statistics, protocol)
    rows = evaluator.evaluate(protocol, "none")  # from the file
    assert outcomes(sorted(rows, key=lambda row: row.seed)) == outcomes(local)


def test_answers_that_are_too_short_for_the_protocol_are_one_error(server, tmp_path):
    evaluator = evaluator_of(f"ws://{server}/", tmp_path)
    with pytest.raises(MuvlaError) as info:
        evaluator.evaluate(replace(PROTOCOL, regime="open_loop", h=2, tick="call"), "none")
    assert info.value.field == "protocol.h"


def test_interventions_and_measurements_are_refused_with_a_reason(server, tmp_path):
    evaluator = evaluator_of(f"ws://{server}/", tmp_path)
    for call in (
        lambda: evaluate_conditions(evaluator, {"served": [PROTOCOL]}, ["zero"], lambda _: None),
        lambda: take_measurement(evaluator, ScheduledMeasurement(get_probe("dynamics", PROTOCOL), PROTOCOL, 1)),
        lambda: evaluator.run.load_policy(),
    ):
        with pytest.raises(MuvlaError) as info:
            call()
        assert info.value.field == "RUN" and "access" in str(info.value)


# --- servers that break -----------------------------------------------------------------------------------------------


class Broken:
    """A vla-eval server whose first `failures` answers are wrong in one way."""

    def __init__(self, how, failures, dimension=2):
        self.how, self.failures, self.dimension = how, failures, dimension

    async def health(self, request):
        return web.json_response({"status": "ok"})

    async def config(self, request):
        return web.json_response({"applied": {}, "config": {"max_batch_size": 1}})

    async def socket(self, request):
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for frame in socket:
            message = decode_message(frame.data, "vla-eval")
            if message["type"] == "hello":
                await self.send(socket, message, "hello", {"model_server": "test"})
            if message["type"] == "observation":
                if self.failures > 0:
                    self.failures -= 1
                    await self.fail(socket, message)
                else:
                    await self.send(socket, message, "action", {"actions": np.zeros(self.dimension, np.float32)})
        return socket

    async def send(self, socket, message, name, payload):
        answer = {"type": name, "payload": payload, "seq": message["seq"], "timestamp": 0.0}
        await socket.send_bytes(encode_message(answer, "vla-eval"))

    async def fail(self, socket, message):
        if self.how == "silence":
            return
        if self.how == "end":
            await socket.close()
        elif self.how == "text":
            await socket.send_str("traceback")
        elif self.how == "bytes":
            await socket.send_bytes(b"\xc1")
        elif self.how == "error":
            await self.send(socket, message, "error", {"error": "out of memory"})
        else:
            wrong = {"nan": np.full(2, np.nan, np.float32), "shape": np.zeros(3, np.float32), "none": None}
            await self.send(socket, message, "action", {"actions": wrong[self.how]})

    def __enter__(self):
        self.loop, ready = asyncio.new_event_loop(), threading.Event()

        async def start():
            app = web.Application()
            app.router.add_get("/health", self.health)
            app.router.add_get("/config", self.config)
            app.router.add_get("/", self.socket)
            self.runner = web.AppRunner(app, shutdown_timeout=0.1)
            await self.runner.setup()
            site = web.TCPSite(self.runner, "127.0.0.1", 0)
            await site.start()
            self.port = self.runner.addresses[0][1]
            ready.set()

        self.loop.create_task(start())
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        assert ready.wait(10)
        return self

    def __exit__(self, *error):
        asyncio.run_coroutine_threadsafe(self.runner.cleanup(), self.loop).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)


@pytest.mark.parametrize("how", ["silence", "end", "text", "bytes", "error", "nan", "shape", "none"])
def test_a_broken_answer_is_retried_once_and_is_then_an_error_row(how, tmp_path):
    protocol = replace(PROTOCOL, episodes=2, step_limit=8)
    for failures, errors, attempts in ((1, 0, [1, 2]), (2, 1, [1, 2])):
        with Broken(how, failures) as broken:
            evaluator = evaluator_of(f"ws://127.0.0.1:{broken.port}/", tmp_path / f"{failures}", timeout=0.3)
            rows = evaluator.evaluate(protocol, "none", workers=1)
        assert sum(row.error is not None for row in rows) == errors, [row.error for row in rows]
        assert sorted(row.attempt for row in rows) == attempts
        assert all("policy server" in row.error for row in rows if row.error)


def test_no_server_and_a_server_without_a_name_are_one_error(tmp_path):
    with pytest.raises(MuvlaError) as info:
        find_server("ws://127.0.0.1:9/", timeout=2)
    assert info.value.field == "RUN"

    class Frames(Broken):
        async def config(self, request):
            return web.Response(status=404)

    with Frames("none", 0) as silent:
        address = f"http://127.0.0.1:{silent.port}"
        with pytest.raises(MuvlaError) as info:
            find_server(address)
        assert info.value.field == "--server-name"
        assert find_server(address, name="a").train != find_server(address, name="b").train
        assert find_server(address, name="a").sessions == 1


def test_a_task_of_another_robot_is_refused_before_the_first_episode(server, tmp_path):
    evaluator = evaluator_of(f"ws://{server}/", tmp_path)
    actor = RemoteActor(evaluator.run.server, PROTOCOL)
    env = open_env(PROTOCOL.task, None)
    try:
        env.action_space = type(env.action_space)(-1, 1, (7,))
        with pytest.raises(MuvlaError) as info:
            actor.require_fit(LocalEnv(env))
        assert info.value.field == "protocol.task"
    finally:
        actor.close()
        env.close()
