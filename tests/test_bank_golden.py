"""The bank's parts compute what the published code of MemoryVLA and Dexbotic computes.

A golden run plays frames in an order; each frame belongs to a sequence that begins with an empty store. All sequences
of a run are played here as slots of one batch.
"""

from itertools import groupby

import pytest
import torch

from helpers.golden import load_golden
from muvla.memory.bank_stream import BankStream, StreamSettings
from muvla.memory.compressor import Compressor, GateFirstCompressor

BLOCK = {
    "q_proj": "query",
    "k_proj": "key",
    "v_proj": "value",
    "attn_norm": "attention_norm",
    "ffn.0": "expand",
    "ffn.2": "contract",
    "ffn.3": "contract",  # Dexbotic has a dropout before it
    "ffn_norm": "feed_forward_norm",
}
RENAMED = {
    "timestep_encoder.mlp.0": "time_code.hidden",
    "timestep_encoder.mlp.2": "time_code.out",
    "gate_fusion_blocks.proj": "fusion.gate",
}
STREAMS = {"cog": (1, 32), "per": (16, 8)}
PRECISIONS = (torch.float32, torch.float64)


def ours(name):
    """Published parameter name → name in `BankStream`."""
    for published, part in RENAMED.items():
        name = name.replace(published, part)
    if name.startswith("retrieval_blocks."):
        _, index, rest = name.split(".", 2)
        layer, leaf = rest.rsplit(".", 1)
        name = f"retrieval.blocks.{index}.{BLOCK[layer]}.{leaf}"
    return name


def weights_of(golden, stream):
    """The set's weights of a stream under MemoryVLA's names; Dexbotic holds both streams in one module."""
    if "dexbotic" not in golden.name:
        return golden.weights(f"{stream}_mem_bank.")
    renamed = {}
    for name, tensor in golden.weights("per_cog_mem_bank.").items():
        part, role, rest = name.split(".", 2)
        if role == stream:
            new = {"timestep_embedders": "timestep_encoder"}.get(part, part)
            renamed[f"{new}.{rest}"] = tensor
    return renamed


def stream_of(golden, run, stream, dtype):
    dexbotic = "dexbotic" in golden.name
    settings = StreamSettings(
        run["L"],
        heads=4 if dexbotic else 1,
        time_code=run["time"],
        gate=run["fusion"] == "gate",
        rule={"tome": "merge", "fifo": "fifo"}[run["cons"]],
        dexbotic=dexbotic,
    )
    module = BankStream(*STREAMS[stream], settings)
    wanted = module.state_dict().keys()
    loaded = {ours(name): tensor for name, tensor in weights_of(golden, stream).items()}
    module.load_state_dict({name: loaded[name] for name in wanted})
    return module.to(dtype)


def sequences_of(golden, mode):
    """Rows in processing order, and sequences of row numbers that each begin with an empty store."""
    calls = golden.about["calls"][mode]
    rows = [(name, tuple(key) if isinstance(key, list) else key, frame) for call in calls for name, key, frame in call]
    if mode == "group":
        size = golden.about["group_size"]
        return rows, [list(range(i, i + size)) for i in range(0, len(rows), size)]
    if mode.startswith("stream"):
        runs = groupby(range(len(rows)), key=lambda i: rows[i][1])
        return rows, [list(run) for _, run in runs]
    keys = dict.fromkeys(key for _, key, _ in rows)
    return rows, [[i for i, row in enumerate(rows) if row[1] == key] for key in keys]


def play(module, tokens, times, sequences, fused_write):
    """Lookup and store of every row, with all sequences side by side.

    Args:
        module: a stream.
        tokens: (rows, N, D).
        times: (rows,).
        sequences: row numbers of each sequence, in order.
        fused_write: store the fused tokens.
    """
    length = max(map(len, sequences))
    index = torch.tensor([[run[min(t, len(run) - 1)] for run in sequences] for t in range(length)])
    store, visited = module.empty_store(len(sequences)), {}
    for t in range(length):
        query, now = tokens[index[t]], times[index[t]]
        lookup = module.lookup(query, store, now)
        store = module.append(store, (lookup.fused if fused_write else query).detach(), now)
        visited |= {run[t]: (lookup, store, slot) for slot, run in enumerate(sequences) if t < len(run)}
    return [visited[row] for row in range(len(tokens))]


def inputs_of(golden, rows, stream, dtype):
    tensors = golden.tensors
    tokens = torch.stack([tensors[f"in.{stream}.tokens.{name}"][frame] for name, _, frame in rows]).to(dtype)
    return tokens, torch.stack([tensors[f"in.timesteps.{name}"][frame] for name, _, frame in rows])


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize(
    "name", ["b1_bank_eval_L4", "b2_bank_eval_L12", "b3_bank_train_group", "b4_bank_train_stream", "b5_bank_dexbotic"]
)
def test_a_stream_computes_the_published_numbers(name, dtype):
    golden = load_golden(f"memoryvla/{name}")
    for run in golden.about["runs"]:
        rows, sequences = sequences_of(golden, run["mode"])
        for stream in STREAMS:
            module = stream_of(golden, run, stream, dtype)
            tokens, times = inputs_of(golden, rows, stream, dtype)
            tokens.requires_grad_(run.get("grad", False))
            played = play(module, tokens, times, sequences, run["update_fused"])
            path = f"{run['id']}.{stream}"
            for part in ("fused", "retrieved", "gate"):
                if part != "gate" or run["fusion"] == "gate":
                    golden.compare(
                        f"{path}.{part}", torch.stack([getattr(lookup, part)[slot] for lookup, _, slot in played])
                    )
            compare_stores(golden, path, played, run["time"])
            if run.get("grad"):
                fused = torch.stack([lookup.fused[slot] for lookup, _, slot in played])
                (fused * golden.tensors[f"in.{stream}.R"][: len(fused)].to(dtype)).sum().backward()
                golden.compare(f"{path}.grad.tokens", tokens.grad)
                gradients = {name: p.grad for name, p in module.named_parameters()}
                for published in weights_of(golden, stream):
                    golden.compare(f"{path}.grad.{published}", gradients[ours(published)])


def compare_stores(golden, path, played, timed):
    lengths = [store.length[slot] for _, store, slot in played]
    golden.compare(f"{path}.bank_len", torch.stack(lengths))
    entries = [store.entries[slot, :n] for (_, store, slot), n in zip(played, lengths, strict=True)]
    golden.compare(f"{path}.bank", torch.cat(entries))
    if timed:
        times = torch.cat([store.times[slot, :n] for (_, store, slot), n in zip(played, lengths, strict=True)])
        assert torch.equal(times, golden.tensors[f"out.{path}.bank_t"].to(times.dtype)), path


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_the_compressors_compute_the_published_tokens(dtype):
    golden = load_golden("memoryvla/a_se_compressor")
    excitation = {"excite.1": "excitation.squeeze", "excite.3": "excitation.excite"}
    published = Compressor(24, 16), golden.weights("per_compr."), excitation, ""
    dexbotic = (
        GateFirstCompressor(24, 16),
        golden.weights("dexbotic.per_compr."),
        excitation | {"reduce.0": "reduce", "reduce.2": "expand"},
        "dexbotic.",
    )
    for module, weights, names, prefix in (published, dexbotic):
        loaded = {}
        for name, tensor in weights.items():
            layer, leaf = name.rsplit(".", 1)
            loaded[f"{names.get(layer, layer)}.{leaf}"] = tensor[..., 0, 0] if tensor.ndim == 4 else tensor
        module.load_state_dict(loaded)
        module.to(dtype)
        for cameras in ("one", "two", "three"):
            if f"out.{prefix}tokens.{cameras}" in golden.tensors:
                patches = golden.tensors[f"in.patches.{cameras}"].to(dtype).unflatten(1, (-1, 16))
                golden.compare(f"{prefix}tokens.{cameras}", module(patches))


def test_the_sizes_are_those_of_the_published_checkpoint():
    with torch.device("meta"):
        modules = (
            BankStream(1, 4096, StreamSettings(16)),
            BankStream(256, 256, StreamSettings(16)),
            Compressor(2176, 256),
        )
    counts = [sum(parameter.numel() for parameter in module.parameters()) for module in modules]
    assert counts == [423_735_296, 1_661_696, 1_278_496]


def test_the_bound_of_a_golden_tensor_bites():
    golden = load_golden("memoryvla/a_se_compressor")
    with pytest.raises(AssertionError):
        golden.compare("tokens.one", golden.tensors["out.tokens.one"] + 1e-5)
    with pytest.raises(AssertionError):
        golden.compare("tokens.one", golden.tensors["out64.tokens.one"] + 1e-8)
