"""The mechanism `feature_fifo` keeps the queue of the published server, and makes its condition tokens."""

import pytest
import torch

from helpers.golden import load_golden
from muvla.config import MemoryConfig
from muvla.memory.contract import Clock, Dimensions, Observed
from muvla.memory.feature_fifo import PIECES, ConditionTokens
from muvla.memory.placed import Query
from muvla.memory.registry import build_memory

NAMES = {
    "linear_0": "past",
    "extend_net.0": "spread",
    "linear": "current",
}


def test_the_queue_and_its_padding_are_those_of_the_published_server():
    """14 calls of one server; the instruction changes before call 11, which begins an episode."""
    golden = load_golden("cronusvla/e2_feature_fifo_server")
    features, tasks = golden.tensors["in.hidden"][:, -1], golden.about["tasks"]
    memory = build_memory(MemoryConfig("feature_fifo", capacity=3, place="fuse"), Dimensions(32, chunk=2, action=7))
    state = memory.init_state(1)
    for call, feature in enumerate(features):
        is_first = torch.tensor([call == 0 or tasks[call] != tasks[call - 1]])
        state = memory.reset(state, is_first)
        assert torch.equal(memory.window(state, feature[None])[0], golden.tensors["out.window"][call]), call
        observed = Observed(torch.zeros(1, 1, 32), torch.zeros(1, 1, 32), torch.ones(1))
        query = Query(observed, feature[None], feature[None])
        state = memory.update(state, query, Clock(is_first, is_first, is_first, is_first), None)
        assert state["length"].tolist() == [golden.tensors["out.history_len_after_step"][call].item()]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_condition_tokens_are_those_of_the_published_decoder(dtype):
    """The published tensors come before the positions are added."""
    golden = load_golden("cronusvla/e2_feature_fifo_server")
    prefix = "action_model.net.z_embedder."
    module = ConditionTokens(3, 32, 32)
    loaded = {}
    for name, tensor in golden.weights(prefix).items():
        layer, _, leaf = name.rpartition(".")
        if layer in NAMES:
            loaded[f"{NAMES[layer]}.{leaf}"] = tensor
    module.load_state_dict(loaded | {"positions": torch.zeros(3 + PIECES, 32)})
    module.to(dtype)
    for call, window in enumerate(golden.tensors["out.window"]):
        golden.compare(f"step{call}.condition_tokens", module(window[None].to(dtype)))
    positions = golden.tensors["w.action_model.net.condition_positional_embedding"].to(dtype)
    plain = module(window[None].to(dtype))
    module.positions.data = positions
    torch.testing.assert_close(module(window[None].to(dtype)) - plain, positions[None])
