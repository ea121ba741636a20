"""A server's sessions: memory by session, batches, order, silence, refusals; and who may come in."""

import asyncio
import json
import tempfile
import time

import aiohttp
import numpy as np
import pytest

from helpers.serving import HashSlots, advance, alone, chunk_of, frame, running
from helpers.wires import FrameClient, OpenpiClient, VlaEvalClient
from muvla.errors import MuvlaError
from muvla.serving import pictures
from muvla.serving.clients import VlaEvalWire
from muvla.serving.gate import Gate
from muvla.serving.gripper import Gripper
from muvla.serving.observation import Needs
from muvla.serving.refusal import Refused
from muvla.serving.regime import ActionQueue, Regime
from muvla.serving.server import Server
from muvla.serving.sessions import Limits, Sessions

CLIENTS = (VlaEvalClient, OpenpiClient, FrameClient)
AT_ONCE = Limits(window=0)


def with_sessions(slots, body, regime=None, limits=AT_ONCE):
    """Run `body(sessions)` in an event loop with running sessions."""

    async def run():
        sessions = Sessions(slots, regime or Regime(), limits)
        sessions.start()
        try:
            return await asyncio.wait_for(body(sessions), 20)
        finally:
            await sessions.stop()

    return asyncio.run(run())


def refused(awaitable_of, slots=None, **options):
    with pytest.raises(Refused) as info:
        with_sessions(slots or HashSlots(), awaitable_of, **options)
    return info.value


# --- sessions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [0, 0.005])
def test_eight_sessions_in_batches_get_the_answers_of_a_session_alone(window):
    slots = HashSlots()

    async def episode(sessions, number):
        session, rng = sessions.open(str(number)), np.random.default_rng(number)
        for start in range(2):
            await asyncio.sleep(rng.uniform(0, 0.02))
            await sessions.begin(session, seed=number)
            frames = [frame(1000 * number + 100 * start + i) for i in range(int(rng.integers(5, 15)))]
            got = [(await sessions.act(session, observed)).actions[0] for observed in frames]
            assert np.array_equal(got, alone(frames, seed=number))
            sessions.end(session)

    async def body(sessions):
        await asyncio.gather(*(episode(sessions, number) for number in range(8)))

    with_sessions(slots, body, limits=Limits(window=window))
    assert max(slots.batches) > 1


def test_a_repeated_request_gets_the_same_answer_and_writes_once():
    async def body(sessions):
        session = sessions.open("a")
        await sessions.begin(session)
        first = await sessions.act(session, frame(0), 5)
        again = await sessions.act(session, frame(0), 5)
        both = await asyncio.gather(sessions.act(session, frame(1), 7), sessions.act(session, frame(1), 7))
        assert first is again and both[0] is both[1]
        assert np.array_equal([first.actions[0], both[0].actions[0]], alone([frame(0), frame(1)]))
        assert (sessions.metrics.duplicates, sessions.metrics.gaps) == (2, 1)

    with_sessions(HashSlots(), body)


def test_a_repeat_after_the_end_of_the_episode_is_refused():
    async def body(sessions):
        session = sessions.open("a")
        await sessions.begin(session)
        await sessions.act(session, frame(0), 5)
        sessions.end(session)
        await sessions.act(session, frame(0), 5)

    assert refused(body).field == "sequence"


@pytest.mark.parametrize(("sequence", "seed"), [(4, 0), (5, 1)], ids=["back in time", "another frame, same number"])
def test_a_frame_out_of_order_is_refused(sequence, seed):
    async def body(sessions):
        session = sessions.open("a")
        await sessions.begin(session)
        await sessions.act(session, frame(0), 5)
        await sessions.act(session, frame(seed), sequence)

    error = refused(body)
    assert (error.field, error.status) == ("sequence", 409)


def test_a_step_before_the_start_and_two_requests_at_once_are_refused():
    async def early(sessions):
        await sessions.act(sessions.open("a"), frame(0))

    async def twice(sessions):
        session = sessions.open("a")
        await sessions.begin(session)
        await asyncio.gather(sessions.act(session, frame(0)), sessions.act(session, frame(1)))

    async def same_name(sessions):
        sessions.open("a")
        sessions.open("a")

    for body in (early, twice, same_name):
        error = refused(body)
        assert (error.field, error.status) == ("session", 409)


def test_an_error_of_the_policy_leaves_memory_and_neighbours_as_they_were():
    async def body(sessions):
        a, b = sessions.open("a"), sessions.open("b")
        await sessions.begin(a)
        await sessions.begin(b)
        await sessions.act(a, frame(0))
        results = await asyncio.gather(
            sessions.act(a, frame(1, instruction="boom"), 1), sessions.act(b, frame(2)), return_exceptions=True
        )
        assert (results[0].field, results[0].status) == ("policy", 500)
        assert np.array_equal(results[1].actions[0], alone([frame(2)])[0])
        after = await sessions.act(a, frame(3), 1)
        assert np.array_equal(after.actions[0], alone([frame(0), frame(3)])[1])

    with_sessions(HashSlots(), body, limits=Limits(window=0.05))


def test_a_silent_session_is_closed_and_its_slot_is_free():
    async def body(sessions):
        session = sessions.open("a")
        await sessions.begin(session)
        await asyncio.sleep(0.2)
        assert not sessions.sessions
        other = sessions.open("b")
        await sessions.begin(other)
        await sessions.act(session, frame(0))

    error = refused(body, HashSlots(1), limits=Limits(silence=0.05))
    assert error.field == "session" and "silent" in str(error)


@pytest.mark.parametrize("when_full", ["queue", "refuse"])
def test_more_episodes_than_slots_queue_or_are_refused(when_full):
    async def body(sessions):
        a, b = sessions.open("a"), sessions.open("b")
        await sessions.begin(a)
        waiting = asyncio.create_task(sessions.begin(b))
        await asyncio.sleep(0.01)
        assert waiting.done() == (when_full == "refuse")
        if when_full == "refuse":
            assert waiting.exception().status == 503
            return
        sessions.end(a)
        await waiting
        answer = await sessions.act(b, frame(0))
        assert np.array_equal(answer.actions[0], alone([frame(0)])[0])

    with_sessions(HashSlots(1), body, limits=Limits(window=0, when_full=when_full))


def test_a_client_that_leaves_during_a_pass_frees_its_slot_only_afterwards():
    async def body(sessions):
        a, b = sessions.open("a"), sessions.open("b")
        await sessions.begin(a)
        task = asyncio.create_task(sessions.act(a, frame(0)))
        await asyncio.sleep(0.01)  # the window is open
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        sessions.close(a)
        assert not sessions._free
        await sessions.begin(b)
        answer = await sessions.act(b, frame(1))
        assert np.array_equal(answer.actions[0], alone([frame(1)])[0])

    with_sessions(_Slow(1), body)


class _Slow(HashSlots):
    def tick(self, frames, steps):
        time.sleep(0.05)
        return super().tick(frames, steps)


def test_the_rate_of_a_session_is_limited():
    async def body(sessions):
        session = sessions.open("a")
        await sessions.begin(session)
        for i in range(10):
            await sessions.act(session, frame(i))

    error = refused(body, limits=Limits(window=0, rate=5))
    assert (error.field, error.status) == ("rate", 429)


# --- regimes ----------------------------------------------------------------------------------------------------------


def taken(regime, chunks):
    """The actions of requests, and at which requests the model ran."""
    queue, actions, ticks = ActionQueue(regime), [], []
    for chunk in chunks:
        ticks.append(queue.needs_tick)
        actions.append(queue.take(chunk if queue.needs_tick else None))
    return np.array(actions), ticks


def test_regimes_give_the_actions_of_their_table():
    chunks = np.arange(6 * 4 * 2, dtype=np.float32).reshape(6, 4, 2)
    actions, ticks = taken(Regime(), chunks)
    assert np.array_equal(actions[:, 0], chunks[:, 0]) and all(ticks)
    expected = [chunks[0, 0], chunks[0, 1], chunks[0, 2], chunks[3, 0], chunks[3, 1], chunks[3, 2]]
    for tick, model in (("env_step", [True] * 6), ("call", [True, False, False] * 2)):
        actions, ticks = taken(Regime("open_loop", h=3, tick=tick), chunks)
        assert np.array_equal(actions[:, 0], expected) and ticks == model
    actions, _ = taken(Regime("chunk", h=3), chunks)
    assert np.array_equal(actions, chunks[:, :3])
    actions, _ = taken(Regime("ensemble", horizon=2, alpha=0.0), chunks)
    assert np.allclose(actions[1:, 0], (chunks[1:, 0] + chunks[:-1, 1]) / 2)


@pytest.mark.parametrize(
    ("field", "numbers"),
    [
        ("--regime", ("often",)),
        ("--h", ("receding", 2)),
        ("--h", ("chunk", 0)),
        ("--tick", ("open_loop", 2, "daily")),
        ("--tick", ("chunk", 2, "call")),
        ("--horizon", ("ensemble",)),
        ("--alpha", ("receding", 1, "env_step", 1, 0.5)),
    ],
)
def test_a_regime_that_means_nothing_is_refused(field, numbers):
    with pytest.raises(MuvlaError) as info:
        Regime(*numbers)
    assert info.value.field == field


# --- observations -----------------------------------------------------------------------------------------------------

NEEDS = Needs(cameras=2, proprio=3, reads_proprio=True, names=("front", "wrist"))
IMAGE = np.zeros((8, 8, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("field", "images", "state", "text"),
    [
        ("images", {}, np.zeros(3), ""),
        ("images", {"front": IMAGE, "side": IMAGE}, np.zeros(3), ""),
        ("images", {"front": IMAGE, "wrist": np.zeros((4, 8, 3), np.uint8)}, np.zeros(3), ""),
        ("images.wrist", {"front": IMAGE, "wrist": IMAGE.astype(np.float32)}, np.zeros(3), ""),
        ("images.front", {"front": IMAGE[..., 0], "wrist": IMAGE}, np.zeros(3), ""),
        ("images.front", {"front": IMAGE[:0], "wrist": IMAGE}, np.zeros(3), ""),
        ("images.front", {"front": "picture", "wrist": IMAGE}, np.zeros(3), ""),
        ("state", {"front": IMAGE, "wrist": IMAGE}, None, ""),
        ("state", {"front": IMAGE, "wrist": IMAGE}, np.zeros(4), ""),
        ("state", {"front": IMAGE, "wrist": IMAGE}, ["a", "b", "c"], ""),
        ("state", {"front": IMAGE, "wrist": IMAGE}, [0, 1, np.nan], ""),
        ("state", {"front": IMAGE, "wrist": IMAGE}, [0, 1, [2]], ""),
        ("instruction", {"front": IMAGE, "wrist": IMAGE}, np.zeros(3), None),
        ("instruction", {"front": IMAGE, "wrist": IMAGE}, np.zeros(3), "a" * 20_000),
    ],
)
def test_an_observation_that_does_not_fit_names_what_is_missing(field, images, state, text):
    with pytest.raises(Refused) as info:
        NEEDS.check(images, state, text)
    assert (info.value.field, info.value.status) == (field, 400)


def test_cameras_are_taken_by_name_and_a_state_that_nobody_reads_may_be_absent():
    swapped = {"wrist": IMAGE + 1, "front": IMAGE}
    assert NEEDS.check(swapped, np.zeros(3), "").images[:, 0, 0, 0].tolist() == [0, 1]
    in_order = Needs(cameras=2, proprio=3, reads_proprio=False)
    observed = in_order.check(swapped, None, "")
    assert observed.images[:, 0, 0, 0].tolist() == [1, 0] and observed.proprio.tolist() == [0, 0, 0]


# --- wires ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server():
    with running(HashSlots(), one_episode=False) as running_server:
        yield running_server


@pytest.mark.parametrize("client", CLIENTS)
def test_every_wire_gives_the_answers_of_an_episode_alone(server, client):
    async def play():
        async with client(server.port) as wire:
            for seed in (3, 4):  # two episodes: the second starts with an empty memory
                frames = [frame(10 * seed + i) for i in range(4)]
                await wire.begin(seed)
                got = [await wire.act(observed) for observed in frames]
                assert np.array_equal(np.array(got, np.float32), alone(frames, seed=seed))

    asyncio.run(play())


@pytest.mark.parametrize("client", CLIENTS)
def test_every_wire_names_the_field_of_a_frame_that_does_not_fit(server, client):
    async def play(field, observed):
        async with client(server.port) as wire:
            await wire.begin(0)
            assert field in await wire.refusal(observed)

    asyncio.run(play("images", frame(0, side=7)))
    asyncio.run(play("state", type(frame(0))(frame(0).images, np.zeros(2, np.float32), "")))


@pytest.mark.parametrize("client", CLIENTS)
def test_a_frame_before_the_start_is_refused_on_every_wire(server, client):
    async def play():
        options = {"session": "never begun"} if client is FrameClient else {}
        async with client(server.port, **options) as wire:
            return await wire.refusal(frame(0))

    assert ("episode_start" if client is OpenpiClient else "session") in asyncio.run(play())


def test_a_start_drops_the_actions_of_the_chunk_in_use():
    async def body(sessions):
        session = sessions.open("a")
        for seed in (0, 1):
            await sessions.begin(session, seed)
            for _ in range(2):  # of three
                answer = await sessions.act(session, frame(seed))
        expected = chunk_of(advance(b"1", frame(1), 0), 4)[1]
        assert np.array_equal(answer.actions[0], expected)

    with_sessions(HashSlots(), body, regime=Regime("open_loop", h=3, tick="call"))


def test_openpi_may_declare_one_episode_per_connection_and_a_memoryless_policy_needs_no_start():
    async def play(port):
        async with OpenpiClient(port) as wire:
            return [await wire.act(frame(i)) for i in range(2)]

    for slots, declared in ((HashSlots(), True), (HashSlots(recurrent=False), False)):
        with running(slots, one_episode=declared) as open_server:
            got = asyncio.run(play(open_server.port))
        assert np.array_equal(np.array(got, np.float32), alone([frame(0), frame(1)]))


def test_http_sessions_have_names_and_one_without_a_name_has_the_whole_server(server):
    async def play():
        async with FrameClient(server.port, session="x") as x, FrameClient(server.port, session="y") as y:
            await x.begin(0)
            await y.begin(0)
            got = [await x.act(frame(0)), await y.act(frame(1)), await x.act(frame(2))]
            repeated = await x.post(frame(2), x.sequence)
            assert repeated[1]["response"] == got[2]
        assert np.array_equal(np.array(got[::2], np.float32), alone([frame(0), frame(2)]))
        options = {"session": "z"}
        async with (
            FrameClient(server.port, **options) as z,
            FrameClient(server.port, host="127.0.0.2", **options) as same_name,
        ):
            await z.begin(0)
            got = [await z.act(frame(0))]
            status, body = await same_name.post(frame(1), 2)
            assert (status, body["field"]) == (409, "X-Muvla-Session")
            got.append(await z.act(frame(2)))
        assert np.array_equal(np.array(got, np.float32), alone([frame(0), frame(2)]))
        async with FrameClient(server.port, host="127.0.0.2") as stranger, FrameClient(server.port) as first:
            await first.begin(0)
            await first.act(frame(0))
            stranger.is_first = True
            status, body = await stranger.post(frame(0))
            assert (status, body["field"]) == (409, "X-Muvla-Session")

    asyncio.run(play())


def test_config_health_and_metrics(server):
    async def get(path):
        async with aiohttp.ClientSession() as client, client.get(f"http://127.0.0.1:{server.port}{path}") as reply:
            return reply.status, await reply.text()

    assert json.loads(asyncio.run(get("/config"))[1])["config"]["chunk"] == 4
    assert asyncio.run(get("/health"))[0] == asyncio.run(get("/healthz"))[0] == 200
    text = asyncio.run(get("/metrics"))[1]
    assert 'muvla_requests_total{wire="vla-eval"}' in text and 'muvla_latency_seconds{quantile="0.99"}' in text


# --- safety -----------------------------------------------------------------------------------------------------------


def test_an_address_beyond_this_machine_needs_an_access_key():
    for host in ("0.0.0.0", "192.168.0.7", "example.org"):
        with pytest.raises(MuvlaError) as info:
            Server(Gate(Sessions(HashSlots(), Regime()), {}), host)
        assert info.value.field == "--access-key"
    Server(Gate(Sessions(HashSlots(), Regime()), {}, access_key="k"), "0.0.0.0")


def test_the_access_key_is_required_on_every_path_but_health():
    async def statuses(port):
        async with aiohttp.ClientSession() as client:
            statuses_got = []
            for path, headers in (
                ("/config", {}),
                ("/config", {"Authorization": "Api-Key no"}),
                ("/config", {"Authorization": "Api-Key secret"}),
                ("/config?key=secret", {}),
                ("/vla-eval", {}),
                ("/health", {}),
                ("/config?key=secret", {"Origin": "http://example.org"}),
            ):
                async with client.get(f"http://127.0.0.1:{port}{path}", headers=headers) as reply:
                    statuses_got.append(reply.status)
            return statuses_got

    with running(HashSlots(), access_key="secret") as closed:
        assert asyncio.run(statuses(closed.port)) == [401, 401, 200, 200, 401, 200, 403]


def test_a_second_server_on_the_port_and_an_unusable_address_are_one_error(server):
    for host, port, field in (("127.0.0.1", server.port, "--port"), ("203.0.113.7", 0, "--host")):
        second = Server(Gate(Sessions(HashSlots(), Regime()), {}, access_key="k"), host, port)
        with pytest.raises(MuvlaError) as info:
            asyncio.run(second.start())
        assert info.value.field == field


def test_a_server_that_stops_answers_what_arrived_and_closes_its_connections():
    async def play(server):
        async with VlaEvalClient(server.port) as wire:
            await wire.begin(0)
            first = asyncio.create_task(wire.act(frame(0)))
            await asyncio.sleep(0.03)  # the pass is under way
            asyncio.run_coroutine_threadsafe(server.stop(), server.loop)
            assert np.array_equal(await first, alone([frame(0)])[0])
            assert (await wire.socket.receive()).data == 1001

    with running(_Slow(2)) as stopping:
        asyncio.run(play(stopping))


def test_a_message_beyond_the_limit_closes_its_connection_alone():
    async def play(port):
        async with VlaEvalClient(port) as big, VlaEvalClient(port) as other:
            await other.begin(0)
            await big.socket.send_bytes(b"\0" * 70_000)
            message = await big.socket.receive()
            assert message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED) and message.data == 1009
            assert np.array_equal(await other.act(frame(0)), alone([frame(0)])[0])
        async with FrameClient(port) as wire:
            await wire.begin(0)
            status, body = await wire.post(frame(0, side=200))
            assert status == 413 and "error" in body

    with running(HashSlots(), most_bytes=65_536) as small:
        asyncio.run(play(small.port))


@pytest.mark.parametrize(
    ("facts", "parameters"),
    [
        ({}, {"send_wrist_image": False, "send_state": True}),
        ({"tasks": ["libero_goal-0"]}, {"send_wrist_image": False, "send_state": True, "quat_no_antipodal": True}),
        (
            {"statistics_key": "libero_combined"},
            {"send_wrist_image": False, "send_state": True, "quat_no_antipodal": True},
        ),
    ],
)
def test_a_benchmark_of_vla_eval_is_told_what_the_policy_reads(facts, parameters, monkeypatch):
    slots = HashSlots()
    monkeypatch.setattr(slots, "config", lambda: {"action": 2, "slots": 8} | facts)

    async def hello(port):
        wire = VlaEvalWire(f"ws://127.0.0.1:{port}/vla-eval")
        try:
            return (await wire.connect())["metadata"]
        finally:
            await wire.close()

    with running(slots, Regime(gripper=Gripper("closes"))) as server:
        metadata = asyncio.run(hello(server.port))
    assert metadata["observation_params"] == parameters
    assert metadata["action_spec"]["gripper"]["format"] == "binary_close_positive"


def test_a_form_is_read_in_memory(server, monkeypatch):
    """aiohttp's `post` would write the files of a multipart form to disk."""

    def refuse(*given, **options):
        raise AssertionError("a file is written")

    async def play():
        async with FrameClient(server.port, session="memory alone") as wire:
            await wire.begin(0)
            await wire.act(frame(0))

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    asyncio.run(play())


@pytest.mark.parametrize("side", [16, 300])
def test_a_picture_is_the_same_array_with_and_without_a_thread(side, monkeypatch):
    image = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    threads, to_thread = [], asyncio.to_thread

    async def counted(*given):
        threads.append(given)
        return await to_thread(*given)

    monkeypatch.setattr(pictures.asyncio, "to_thread", counted)
    np.testing.assert_array_equal(asyncio.run(pictures.decode_beside(pictures.encode_png(image), "image")), image)
    assert len(threads) == (side**2 > pictures.SMALL)


def test_a_broken_picture_is_refused_and_unknown_parts_are_ignored():
    async def ask(port, **parts):
        form = aiohttp.FormData({"text": "touch it", "episode_first_frame": "True", "proprio": "[0, 0, 0]"})
        for name, content in parts.items():
            form.add_field(name, content, filename="f")
        url = f"http://127.0.0.1:{port}/process_frame"
        async with aiohttp.ClientSession() as client, client.post(url, data=form) as reply:
            return reply.status, await reply.json()

    png = pictures.encode_png(frame(0).images[0])
    with running(HashSlots()) as server:
        assert asyncio.run(ask(server.port, image=png, depth=b"\xff\xfe"))[0] == 200
        status, body = asyncio.run(ask(server.port, image=png[:40]))
    assert (status, body["field"]) == (400, "image")
