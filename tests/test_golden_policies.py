"""Whole training steps and queries of MemoryVLA and CronusVLA compute what the published code computes."""

import numpy as np
import pytest
import torch

from helpers.golden import load_golden
from helpers.published_policy import Player, load_policy, our_name
from muvla.config import MemoryConfig
from muvla.data.normalization import Statistics
from muvla.models.diffusion import Noised, get_error
from muvla.models.expert_sampling import mix
from muvla.models.prompts import RELEASED_PROMPT

PRECISIONS = (torch.float32, torch.float64)
GROUP, BATCH, DRAWS = 4, 8, 4


def bank(capacity, fused, **fields):
    stored = "fused" if fused else "raw"
    return MemoryConfig(
        "bank", place="condition", capacity=capacity, perceptual_width=8, stored=stored, time_code="step", **fields
    )


def cast(tensor, dtype):
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize(
    "run", ["group.raw.L3", "group.fused.L3", "stream.raw.L3", "stream.fused.L3", "group.raw.L3.wrist"]
)
def test_a_training_step_is_the_published_step(run, dtype):
    """Through `Recurrence`: the groups of a batch are slots, a stream is a single slot."""
    golden = load_golden("memoryvla/c4_full_training_step")
    about = next(each for each in golden.about["runs"] if each["id"] == run)
    cameras = 2 if about["wrist"] else 1
    policy = load_policy(golden, bank(about["L"], about["update_fused"]), 8, cameras, dtype)
    slots, ticks = (2, GROUP) if about["loader"] == "group" else (1, BATCH)
    player, previous = Player(policy, slots), None
    for call in range(about["calls"]):
        policy.zero_grad()
        given = lambda name, call=call: cast(golden.tensors[f"in.{name}.{call}"], dtype)  # noqa: E731
        hidden, patches = (given(f"{part}.{cameras}").requires_grad_() for part in ("hidden", "vision_feats"))
        last = cameras * 16 + given("attention_mask").long().sum(dim=1) - 1
        cognition, ids = hidden[torch.arange(BATCH), last], given(f"episode_ids.{about['loader']}").tolist()
        seen, loss = {}, torch.zeros((), dtype=dtype)
        for t in range(ticks):
            rows = [slot * ticks + t for slot in range(slots)]
            draws = [draw * BATCH + row for draw in range(DRAWS) for row in rows]
            label = given("actions")[rows]
            noise, level, uniform = (given(name)[draws] for name in ("noise", "timestep", "rand_drop"))
            noised = Noised(mix(label.repeat(DRAWS, 1, 1), noise, level, 100), noise, level, uniform < 0.1)
            first = [t == 0] * slots if slots > 1 else [ids[t] != previous]
            previous = ids[rows[-1]]
            output = player.tick(cognition[rows], patches[rows], first, given("timesteps")[rows].tolist(), noised)
            loss = loss + get_error(output.actions, label, noised).sum()
            player.loop.truncate()
            for slot, row in enumerate(rows):
                retrieved = output.retrieved
                seen[row] = [x[slot] for x in (retrieved.content, retrieved.perception, retrieved.perception_now)]
        loss = loss / (BATCH * 8 * 7)
        loss.backward()
        name = f"{run}.call{call}"
        golden.compare(f"{name}.loss", loss.detach().view(1))
        for i, part in enumerate(("cog_fused", "per_fused", "per_raw")):
            golden.compare(f"{name}.{part}", torch.stack([seen[row][i] for row in range(BATCH)]).detach())
        golden.compare(f"{name}.grad.hidden", hidden.grad)
        golden.compare(f"{name}.grad.vision_feats", patches.grad)
        compare_gradients(golden, f"out.{name}.grad.", policy)
        compare_times(golden.about["info"].get(f"{name}.bank_times"), player.loop.state, slots)


def compare_gradients(golden, prefix, policy):
    gradients = {name: p.grad for name, p in policy.named_parameters()}
    for full in golden.tensors:
        name = full.removeprefix(prefix)
        if full.startswith(prefix) and name not in ("hidden", "vision_feats"):
            expected = gradients[our_name(name)]
            golden.compare(full.removeprefix("out."), expected.view(golden.tensors[full].shape))


def compare_times(times, state, slots):
    """The times of the last slot's entries; a group's bank holds one slot's episode at the end."""
    if times is None:
        return
    for published, ours in (("cog", "cognitive"), ("per", "perceptual")):
        (expected,) = times[published].values()
        assert state[f"{ours}_times"][slots - 1][: state["length"][slots - 1]].tolist() == expected


def statistics_of(norm_stats):
    (entry,) = norm_stats.values()
    return Statistics.from_release(entry | {"proprio": {"q01": [0.0], "q99": [1.0]}})


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("version", ["new", "old"])
def test_a_query_is_the_published_query(version, dtype):
    """Nine queries of an episode and three of the next; the time is the count of queries."""
    golden = load_golden("memoryvla/c5_predict_action")
    statistics = statistics_of(golden.about["norm_stats"])
    outputs = {"new": "clipped", "old": "binary"}[version]
    for mode, scale in (("ddim10_cfg15", 1.5), ("ddim10_cfg1", 1.0)):
        memory = bank(golden.about["mem_length"], False)
        memory = type(memory)(**{**memory.__dict__, "time_code": "call"})
        player = Player(load_policy(golden, memory, 8, 1, dtype, guidance=scale), 1)
        hidden, patches, noise = (cast(golden.tensors[f"in.{n}"], dtype) for n in ("hidden", "vision_feats", "noise"))
        for step, flag in enumerate(golden.about["flags"]):
            name = f"{version}.{mode}.step{step}"
            with torch.no_grad():
                rows = slice(step, step + 1)
                first, given = [flag == "True"], noise[None, rows]
                output = player.tick(hidden[rows, -1], patches[rows], first, [0], noise=given)
            golden.compare(f"{name}.cog_fused", output.retrieved.content)
            golden.compare(f"{name}.per_fused", output.retrieved.perception)
            chunk = output.actions[0]
            finished = torch.from_numpy(statistics.finish_action(chunk.double().numpy(), outputs)).to(dtype)
            golden.compare(f"{name}.normalized_actions", finished)
            actions = statistics.unnormalise_action(chunk.double().numpy(), outputs)
            np.testing.assert_allclose(actions, golden.tensors[f"out.{name}.actions"].numpy(), rtol=0, atol=5e-6)
            times = golden.about["info"][f"{name}.times"]
            for expected, stream in zip(times, ("cognitive", "perceptual"), strict=True):
                assert player.loop.state[f"{stream}_times"][0][: len(expected)].tolist() == expected


def test_the_prompt_is_the_published_prompt():
    golden = load_golden("memoryvla/c5_predict_action")
    assert golden.about["info"]["prompt"] == RELEASED_PROMPT.format(instruction=golden.about["instruction"].lower())


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_queries_of_a_window_are_cronusvlas(dtype):
    """Fourteen queries; the instruction changes before query 11, which starts an episode."""
    golden = load_golden("cronusvla/e2_feature_fifo_server")
    statistics = statistics_of(golden.about["norm_stats"])
    memory = MemoryConfig("feature_fifo", place="condition", capacity=3)
    policy = load_policy(golden, memory, 12, 1, dtype, guided_axis="time")
    player, tasks = Player(policy, 1), golden.about["tasks"]
    hidden, noise = (cast(golden.tensors[f"in.{name}"], dtype) for name in ("hidden", "noise"))
    windows, chunks, executed, lengths, age = [], [], [], [], 0
    current = None
    for step, task in enumerate(tasks):
        first = step == 0 or task != tasks[step - 1]
        with torch.no_grad():
            output = player.tick(hidden[step : step + 1, -1], None, [first], [step], noise=noise[None, step : step + 1])
        windows.append(output.retrieved.content[0])
        tokens = policy.head.window(output.retrieved.content) - policy.head.window.positions  # stored before positions
        golden.compare(f"step{step}.condition_tokens", tokens.detach())
        chunk = output.actions[0].double().numpy()
        chunks.append(torch.from_numpy(statistics.finish_action(chunk, "binary")).to(dtype))
        if first or age == golden.about["execute_horizon"]:
            current, age = statistics.unnormalise_action(chunk, "binary"), 0
        executed.append(current[age])
        age += 1
        lengths.append(int(player.loop.state["length"]))
    golden.compare("window", torch.stack(windows))
    golden.compare("normalized_chunks", torch.stack(chunks))
    np.testing.assert_allclose(np.stack(executed), golden.tensors["out.executed_actions"].numpy(), rtol=0, atol=5e-6)
    assert lengths == golden.tensors["out.history_len_after_step"].tolist()
