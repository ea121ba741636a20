"""The benchmarks run, and what they compare computes the same. No test looks at a time."""

import dataclasses
import os
from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import (
    attention,
    branching,
    collect,
    diagnostics,
    evaluation,
    experts,
    loop,
    mechanisms,
    memoryvla,
    one_pass,
    orders,
    pairs,
    query,
    serving,
    tiny,
    visioncache,
    window,
)
from benchmarks import store as bench_store
from benchmarks.memory import in_a_process
from benchmarks.pairs import compare
from helpers.peaks import peak_after_a_larger_array
from muvla.config import DatasetConfig, LoraConfig, TaskConfig
from muvla.config.sizes import get_size
from muvla.envs.registry import make_env
from muvla.evaluation.catalog import get_protocol
from muvla.memory.bank_stream import BankStream, StreamSettings
from muvla.models.backends import usable_backends
from muvla.models.lora import add_adapters
from muvla.models.sequence import Layout
from muvla.training.trainer import Trainer

SMALLEST = loop.Setting("tiny", slots=2, m=4, text=6, rounds=1)


@pytest.fixture(autouse=True)
def _cold(monkeypatch):
    """No warm-up calls, which change no number but a time."""
    monkeypatch.setattr(pairs, "WARM_UPS", 0)


def test_a_pair_is_timed_after_its_warm_up_calls(monkeypatch):
    monkeypatch.setattr(pairs, "WARM_UPS", 2)
    calls = []
    compared = compare(lambda: calls.append("a"), lambda: calls.append("b"), rounds=3)
    assert "".join(calls) == "abab" + "abbaab" and len(compared.speedup) == 3


@pytest.mark.parametrize("film", [False, True])
def test_both_sides_of_vision_once_compute_one_gradient(store, cell_with, film):
    """With FiLM the prompt's embedding reaches the loss through the towers as well, and is counted once."""
    cell = cell_with({"truncation": 4, "model.film": film})
    once, per_tick = Trainer(cell, store), tiny.StepByStep(cell, store)
    losses = [trainer.backward(trainer.stream.window(8)) for trainer in (once, per_tick)]
    torch.testing.assert_close(*losses, rtol=1e-5, atol=1e-6)
    for (name, a), (_, b) in zip(once.policy.named_parameters(), per_tick.policy.named_parameters(), strict=True):
        if a.grad is not None or b.grad is not None:
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.slow
def test_every_table_is_made(store, monkeypatch):
    monkeypatch.setattr(tiny, "compare", lambda a, b, rounds=1: compare(a, b, rounds=1))
    for table, lines in ((tiny.vision_once, 3), (tiny.queries, 3), (tiny.guard, 4)):
        rows = table(store)
        assert len(rows) == lines and all(len(row) == 4 and row[-1].endswith("]") for row in rows)


def test_the_loop_over_slots_and_the_batched_bank_compute_one_thing():
    module = BankStream(2, 8, StreamSettings(3)).double()
    loop_over_slots, batched = mechanisms.SlotLoop(module, 4), mechanisms.Batched(module, 4)
    for now in range(7):
        tokens = torch.randn(4, 2, 8, dtype=torch.float64)
        torch.testing.assert_close(loop_over_slots.tick(tokens, now), batched.tick(tokens, now), rtol=0, atol=1e-12)
    assert int(batched.store.counts.max()) > 1


@pytest.mark.slow
def test_mechanisms_are_measured_against_none(tmp_path, monkeypatch, capsys):
    variants = {
        name: config for name, config in mechanisms.variants("tiny").items() if name in ("tokens", "feature_fifo")
    }
    assert set(mechanisms.variants("tiny")) > {
        "gru",
        "frame_stack",
        "bank, L = 16, context",
        "bank, L = 256, fuse",
    } | set(variants)
    monkeypatch.setattr(mechanisms, "variants", lambda size: variants)
    monkeypatch.setattr(mechanisms, "in_a_process", lambda *_: 12.0)
    monkeypatch.setattr(mechanisms, "CAPACITIES", (2,))
    mechanisms.main(rounds=1, here=tmp_path)
    text = (tmp_path / "mechanisms.md").read_text()
    assert text.strip() in capsys.readouterr().out and "Size small: not run." in text
    assert "| feature_fifo |" in text and "queries/s" in text and "lookups/s" in text and "12 MB" in text


def test_the_cost_of_the_guard_is_measured_for_every_usable_backend():
    small = Layout(vision=8, memory=2, text=3, action=4, reserve=2, padded=False)
    rows = attention.costs(rounds=1, layout=small, memory=lambda *_: 1.0)
    backends = usable_backends(attention.DEVICE, attention.DTYPE)
    assert [row[0] for row in rows] == [f"{b}, {way}" for b in backends for way in ("forward", "with backward")]
    assert backends[:2] == ["dense", "split"]
    assert all(len(row) == 6 and row[3].endswith("]") for row in rows)


@pytest.mark.parametrize("megabytes", [40, 160])
def test_the_peak_is_that_of_the_call_alone(megabytes):
    """Whatever the process held before. Other tests free memory that a call uses again, hence a fresh process."""
    assert abs(in_a_process(peak_after_a_larger_array, megabytes) - megabytes) < 10


def test_a_query_and_a_training_step_are_measured(monkeypatch):
    """At the tiny size; the real one needs a GPU."""
    monkeypatch.setattr(query, "BATCHES", (1, 2))
    policy = query.random_policy(get_size("tiny"), "cpu")
    before = {n: p.detach().clone() for n, p in policy.named_parameters() if p.requires_grad}
    made = query.rows(policy, "cpu", rounds=1)
    assert [row[0] for row in made] == ["query, batch 1", "query, batch 2", "LoRA training step, K = 2, 4 slots"]
    after = dict(policy.named_parameters())
    assert not torch.equal(after["head.fc_in.weight"], before["head.fc_in.weight"])
    assert not torch.equal(after["memory.initial"], before["memory.initial"])
    assert all(torch.isfinite(p).all() for p in after.values())


def test_a_window_is_measured_with_and_without_checkpointing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(window, "peak", lambda name, truncation, checkpointing, root: 1.0 + checkpointing)
    window.main("tiny", rounds=1, here=tmp_path)
    text = (tmp_path / "window.md").read_text()
    assert "| K = " in text and "2.00×" in text and text.strip() in capsys.readouterr().out


def test_both_loops_compute_one_gradient():
    """The published structure and ours, at every K, and without vision both too."""
    for K in loop.TRUNCATIONS:
        grads = []
        for loop_type in (loop.Published, loop.Ours):
            policy, cell = loop.build(SMALLEST, "cpu")
            trainer = loop_type(policy, dataclasses.replace(cell, truncation=K), "cpu")
            policy.config = dataclasses.replace(policy.config, attention=loop_type.attention)
            trainer.backward(loop.random_window(policy, SMALLEST))
            grads.append({n: p.grad for n, p in policy.named_parameters() if p.grad is not None})
        assert grads[0].keys() == grads[1].keys() and "vision.projector.0.weight" in grads[0]
        for name, grad in grads[0].items():
            torch.testing.assert_close(grad, grads[1][name], rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.slow
def test_model_flops_are_those_that_torch_counts():
    """With all weights trained, and with adapters. Up to the patch embedding and the first block, whose input needs no
    gradient. torch counts the attention that is written as products."""
    setting = dataclasses.replace(SMALLEST, name="small", slots=1)
    policy, _ = loop.build(setting, "cpu")
    for adapters in (False, True):
        if adapters:
            add_adapters(policy, policy.config.size, LoraConfig(rank=8), seed=0)
        counted = loop.model_flops(policy)
        policy.config = dataclasses.replace(policy.config, attention="dense")
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            encoded = policy.encode(*(x[0] for x in _given(loop.random_window(policy, setting))))
            policy.step(encoded, policy.memory.read(policy.memory.init_state(1)).tokens).actions.sum().backward()
        assert counted == pytest.approx(counter.get_total_flops(), rel=0.02), f"adapters: {adapters}"


def _given(window):
    return window.images, window.proprio, window.text_ids, window.text_lengths


@pytest.fixture
def small_banks(monkeypatch):
    monkeypatch.setattr(memoryvla, "CAPACITIES", (2, 3))
    monkeypatch.setattr(memoryvla, "STEPS", (5,))
    monkeypatch.setattr(memoryvla, "SLOTS", 2)
    monkeypatch.setattr(memoryvla, "WINDOW", 4)


@pytest.mark.slow
@pytest.mark.usefixtures("small_banks")
def test_queries_of_memoryvla_search_a_full_bank_and_a_compiled_expert_gives_the_same_actions():
    policies = memoryvla.random_policies("tiny", "cpu")
    assert list(policies) == ["none", "L = 2", "L = 3"]
    policy, head, queries = policies["L = 3"], policies["L = 3"].head, []
    for expert in (head, memoryvla.compile_expert(head, lambda graph, _: graph.forward)):
        torch.manual_seed(0)  # of the bank's entries
        queries.append(memoryvla.Query(policy, expert))
    assert int(queries[0].recurrence.state["length"]) == 3, "one tick wrote a single entry"
    torch.testing.assert_close(queries[0](), queries[1](), rtol=1e-4, atol=1e-4)
    levels = []
    forward = head.forward
    head.forward = lambda *given: levels.append(given) or forward(*given)
    memoryvla.Query(policy, head, steps=5)
    assert len(levels) == 5


@pytest.mark.slow
@pytest.mark.usefixtures("small_banks")
def test_the_latency_of_memoryvla_is_measured(tmp_path, monkeypatch, capsys):
    """Without a compiler the table says so; the size of the papers is not run without a GPU."""
    monkeypatch.setenv("CXX", "no-compiler")
    assert memoryvla.main("tiny", rounds=1, here=tmp_path) == 0
    text = (tmp_path / "memoryvla.md").read_text()
    assert text.strip() in capsys.readouterr().out
    for line in (
        "| none against L = 3 |",
        "| 10 levels against 5 |",
        "not run: no C++ compiler",
        "| MemoryVLA, L = 16 |",
    ):
        assert line in text
    assert "Size memoryvla-7b: not run." in text
    if not torch.cuda.is_available():
        assert memoryvla.main("memoryvla-7b", here=tmp_path) == 2


@pytest.mark.slow
def test_the_loop_is_measured(tmp_path, capsys):
    loop.main((SMALLEST,), here=tmp_path)
    text = (tmp_path / "loop.md").read_text()
    assert "| tiny, K = " in text and text.strip() in capsys.readouterr().out
    assert ("not run" in text) != torch.cuda.is_available()


@pytest.mark.slow
def test_the_store_and_its_pngs_hold_the_same_frames(tmp_path, monkeypatch, capsys):
    held, unique = bench_store.build_dataset(tmp_path / "data", 0.001)
    decoding, reading = bench_store.stream_of(held, bench_store.PngStream), bench_store.stream_of(held)
    decoding.pngs = bench_store.Pngs(tmp_path / "pngs", held, unique)
    for _ in range(3):
        decoded, read = decoding.window(4), reading.window(4)
        assert torch.equal(decoded.images, read.images) and torch.equal(decoded.label, read.label)
    monkeypatch.setattr(bench_store, "growth", lambda root, gigabytes: 12.0)
    bench_store.main(0.001, rounds=1, here=tmp_path)
    text = (tmp_path / "store.md").read_text()
    assert "frames/s" in text and "12 MB" in text and text.strip() in capsys.readouterr().out


@pytest.mark.slow
def test_the_growth_is_that_of_reading(tmp_path):
    assert 1 < bench_store.growth(tmp_path, 0.02, windows=3) < 300


@pytest.mark.slow
def test_updates_with_and_without_the_cache_are_measured(tmp_path, capsys):
    visioncache.main((("tiny", 2, 1),), here=tmp_path)
    text = (tmp_path / "visioncache.md").read_text()
    assert "frames/s" in text and text.strip() in capsys.readouterr().out


@pytest.mark.slow
def test_what_diagnostics_cost_is_measured_for_every_k(tmp_path, capsys):
    diagnostics.main(rounds=1, here=tmp_path)
    text = (tmp_path / "diagnostics.md").read_text()
    assert all(f"K = {k}" in text for k in (1, 2, 8)) and text.strip() in capsys.readouterr().out


@pytest.mark.slow
def test_one_pass_is_measured_against_a_pass_per_tick(tmp_path, capsys):
    one_pass.main((("none", 1), ("gru, fuse", 2)), rounds=1, here=tmp_path)
    text = (tmp_path / "one_pass.md").read_text()
    assert "| none, B = 1 |" in text and "| gru, fuse, B = 2 |" in text and text.strip() in capsys.readouterr().out


@pytest.mark.slow
def test_groups_are_measured_against_streams(tmp_path, capsys):
    orders.main(("none",), rounds=1, here=tmp_path)
    text = (tmp_path / "orders.md").read_text()
    assert "| none |" in text and text.strip() in capsys.readouterr().out


@pytest.mark.slow
def test_evaluation_is_measured_in_whole_episodes():
    """Here on the recall suite; every side runs the same episodes."""
    protocol = replace(get_protocol("recall-position3-rh@1"), episodes=3, slots=2)
    policy, statistics = evaluation.untrained(proprio=2, action=2)
    run = []

    def make():
        env = make_env(protocol.task, 64)
        reset = env.reset
        env.reset = lambda seed: (run.append(seed), reset(seed=seed))[1]
        return env

    lines, ratio = evaluation.episodes(policy, statistics, protocol, make, rounds=1)
    assert [len(line) for line in lines] == [4, 4] and ratio > 0
    assert len(run) == 4 * 3 and set(run) == set(range(protocol.seed, protocol.seed + 3))
    (line,) = evaluation.batching(policy, 1, 64, slots=2)
    assert line[0].startswith("2 slots") and evaluation.query_seconds(policy, 2, 1, 64) > 0


@pytest.mark.slow
def test_transport_is_what_a_process_costs():
    assert 0 < evaluation.transport_seconds(2, 64, 7, steps=20) < 1


def test_shares_and_estimate():
    """The shares add up; sixteen environments are sixteen times one where nothing but stepping costs, and no faster
    than the policy."""
    lines = evaluation.shares({"render": 0.04, "physics": 0.02, "step": 0.08}, policy=0.015, transport=0.005)
    assert [line[1:] for line in lines] == [
        ["40.0 ms", "40.0 %"],
        ["20.0 ms", "20.0 %"],
        ["20.0 ms", "20.0 %"],
        ["15.0 ms", "15.0 %"],
        ["5.0 ms", "5.0 %"],
    ]
    assert evaluation.estimate(1.0, 0.0, 0.0, query=0.0, batched_query=0.0001, two_against_one=2.0) == pytest.approx(16)
    assert evaluation.estimate(1.0, 0.0, 0.0, query=0.0, batched_query=0.0001, two_against_one=1.0) == pytest.approx(8)
    assert evaluation.estimate(1.0, 0.0, 0.0, query=1.0, batched_query=4.0, two_against_one=2.0) == pytest.approx(8)
    assert evaluation.estimate(1.0, 0.5, 0.0, query=0.0, batched_query=0.0001, two_against_one=2.0) == pytest.approx(24)


@pytest.mark.skipif(os.environ.get("MUVLA_EVERY_TASK") != "1", reason="`make test-sim` runs it: it takes long")
@pytest.mark.sim
@pytest.mark.slow
def test_the_parts_of_a_simulators_step():
    protocol = evaluation.PROTOCOL
    parts = evaluation.step_parts(protocol.task, protocol.image_size, [3])
    assert 0 < parts["render"] + parts["physics"] < parts["step"] and parts["published"] > 0


@pytest.mark.slow
def test_collecting_is_measured(tmp_path, monkeypatch, capsys):
    """Here on the recall suite, with the parts of a simulator's step written down."""
    spec = DatasetConfig(TaskConfig("RecallPosition3-v0"), episodes=3)
    monkeypatch.setattr(collect, "step_parts", lambda *_: {"render": 0.06, "physics": 0.01, "step": 0.08})
    for everything, sentence in ((False, "not run"), (True, "3 demonstrations")):
        collect.main(everything, rounds=1, spec=spec, here=tmp_path)
        text = (tmp_path / "collect.md").read_text()
        assert "demonstrations/min" in text and sentence in text and text.strip() in capsys.readouterr().out
        assert all(share in text for share in ("60.0 ms", "75.0 %", "10.0 ms", "12.5 %"))


def test_the_experts_table_is_made_of_rows():
    def row(task, seed, success, no_ops, assets=()):
        return experts.Row(task, seed, success, 12 + seed, 0, 0, no_ops - 1, 1, "physx_cpu", list(assets), "code")

    rows = [row("RememberColor3-VLA-v0", i, i != 3, 2 + 2 * i) for i in range(4)]
    rows += [dataclasses.replace(row("ShellGamePush-VLA-v0", 0, True, 1, ["025_mug"]), delay_length=0)]
    rows += [dataclasses.replace(row("TakeItBack-VLA-v0", 0, True, 1), delay_length=0)]
    color, push, back = experts.rates(rows)
    assert color[1].startswith("0.75 [") and color[1].endswith("3/4") and color[2:4] == ["13, 12–14", "25"]
    assert color[4].startswith("2–4: 1.00") and color[5].startswith("6–8: 0.50")
    assert push[0] == "ShellGamePush-VLA-v0 (stand-in 025_mug)" and back[4:] == ["–", "–"]


@pytest.mark.slow
def test_both_sides_of_branching_give_the_same_rows(store, cell_with):
    trainer = Trainer(cell_with(), store)
    sides = [branching.map_runner(trainer.policy, trainer.statistics, 4, 6, branches) for branches in (False, True)]
    assert sides[0]() == sides[1]()


@pytest.mark.slow
def test_a_soak_checks_every_answer_over_every_wire_and_leaves_nothing_open(monkeypatch):
    answers = Counter()
    for address in serving.ADDRESSES:  # chosen at random, a short soak may leave a wire out
        for name, value in (("EPISODES", 2), ("TICKS", 3), ("SILENCE", 0.3), ("ADDRESSES", (address,))):
            monkeypatch.setattr(serving, name, value)
        result = serving.soak(0.3, 2)
        assert result["different"] == 0 and result["left_open"] == {"sessions": 0, "slots": 0}
        answers[address[0].name] = result[f"over {address[0].name}"]
    assert set(answers) == {"vla-eval", "openpi", "http"} and min(answers.values()) > 0


def test_a_soak_notices_an_answer_that_differs(monkeypatch):
    for name, value in (("EPISODES", 1), ("TICKS", 2), ("SILENCE", 0.3)):
        monkeypatch.setattr(serving, name, value)
    references = serving.references
    monkeypatch.setattr(
        serving, "references", lambda *given: [(f, [a + 1e-6 for a in answers]) for f, answers in references(*given)]
    )
    assert serving.soak(0.3, 1)["different"] > 0
