"""Every memory mechanism keeps the contract: the registered ones, the documented example and a stranger's."""

import re
from dataclasses import replace as with_fields
from functools import lru_cache

import pytest
import torch

from helpers.packages import write_package
from helpers.paths import ROOT
from helpers.policies import PLAIN_INTERFACE, random_frames, with_output
from muvla.checkpoints import native
from muvla.checkpoints.build import build_policy
from muvla.config import Cell, MemoryConfig, canonical, dummy, ema, no_memory, tbptt
from muvla.config.serialization import content_hash, difference, flatten, from_dict, parse_assignments, to_dict
from muvla.config.serialization import replace as changed
from muvla.config.sizes import get_size
from muvla.envs.phases import Phase
from muvla.envs.registry import make_env
from muvla.errors import MuvlaError
from muvla.evaluation.catalog import get_protocol
from muvla.evaluation.checks import require_tokens
from muvla.evaluation.policy_actor import PolicyActor
from muvla.evaluation.rollout import Rollout
from muvla.interventions import parse_intervention
from muvla.memory.base import Memory, export, float_leaves
from muvla.memory.registry import MECHANISMS
from muvla.models.cost import language_flops, memory_cost
from muvla.models.leak_test import leak_test
from muvla.probes.jacobians import jacobian_norms
from muvla.probes.traces import traces_of
from muvla.recurrence import Moment, Recurrence
from muvla.training.resume import make_checkpoint, resume
from muvla.training.trainer import Trainer

DOCS = ROOT / "docs" / "extending" / "memory.md"
# Three episodes in two slots: a slot is used again. Twelve steps hold cue, delay and the begin of the decision.
SHORT = with_fields(get_protocol("recall-position3-rh@1"), name="short", episodes=3, slots=2, step_limit=12)
STRANGER = '''
from dataclasses import dataclass

import torch
from torch import nn

from muvla.config import MemoryConfig
from muvla.memory.base import Memory
from muvla.memory.contract import Read, Retrieved, Units


@dataclass(frozen=True)
class CellConfig(MemoryConfig):
    kind: str = "stranger_cell"
    width: int = 8
    reads: int = 2

    @property
    def tokens(self):
        return self.reads


class RecurrentCell(Memory):
    """A hidden vector (B, h) and a counter (B,), read as MEMORY tokens."""

    Config = CellConfig
    undefined_interventions = {"noise_norm": "a hidden vector has no tokens"}

    def __init__(self, config, dimensions):
        super().__init__(config, dimensions)
        self.out = nn.Linear(config.width, config.reads * dimensions.width)
        self.mix = nn.Linear(config.width + dimensions.width, config.width)

    def init_state(self, slots):
        zeros = self.out.weight.new_zeros(slots, self.config.width)
        return {"hidden": zeros, "count": torch.zeros(slots, dtype=torch.int64, device=zeros.device)}

    def read(self, state, observed, clock):
        return Read(self.out(state["hidden"]).unflatten(1, (self.config.reads, -1)))

    def write(self, state, taps, clock, read, retrieved):
        new = torch.tanh(self.mix(torch.cat([state["hidden"], taps.memory.mean(dim=1)], dim=1)))
        return {"hidden": new, "count": state["count"] + 1}


@dataclass(frozen=True)
class StoreConfig(MemoryConfig):
    kind: str = "stranger_store"
    capacity: int = 3
    detached: bool = False

    @property
    def gradient_crosses(self):
        return not self.detached


class Store(Memory):
    """The last TEXT states, searched after the model's pass; no MEMORY tokens."""

    Config = StoreConfig

    def __init__(self, config, dimensions):
        super().__init__(config, dimensions)
        self.gate = nn.Linear(dimensions.width, dimensions.width)

    @property
    def units(self):
        return Units("entries", self.config.capacity, ("entries", "steps"))

    def valid_units(self, state):
        return torch.arange(self.config.capacity, device=state["length"].device) < state["length"]

    def init_state(self, slots):
        entries = self.gate.weight.new_zeros(slots, self.config.capacity, self.embedding)
        steps = torch.zeros(slots, self.config.capacity, dtype=torch.int64, device=entries.device)
        return {"entries": entries, "steps": steps, "length": steps[:, 0]}

    def retrieve(self, state, query, clock):
        scores = (state["entries"] @ query.text[:, :, None])[..., 0] / self.embedding**0.5
        places = torch.arange(self.config.capacity, device=scores.device)
        empty = places >= state["length"][:, None]
        weight = torch.softmax(scores.masked_fill(empty, -1e9), dim=1).masked_fill(empty, 0.0)
        return Retrieved((weight[:, None] @ state["entries"])[:, 0], attention=weight)

    def inject(self, retrieved, head_states):
        return head_states + self.gate(retrieved.content)[:, None].to(head_states.dtype)

    def write(self, state, taps, clock, read, retrieved):
        capacity = self.config.capacity
        full = state["length"] >= capacity
        shifted = {
            name: torch.where(full.view(-1, *[1] * (leaf.ndim - 1)), leaf.roll(-1, dims=1), leaf)
            for name, leaf in state.items()
            if name != "length"
        }
        at = torch.arange(capacity, device=full.device) == state["length"].clamp(max=capacity - 1)[:, None]
        return {
            "entries": torch.where(at[..., None], taps.text[:, None], shifted["entries"]),
            "steps": torch.where(at, clock.step[:, None], shifted["steps"]),
            "length": (state["length"] + 1).clamp(max=capacity),
        }
'''
OURS = {
    "none": no_memory(),
    "dummy": dummy(4),
    "tokens": tbptt(8, 4),
    "ema": ema(0.1, 4),
    "gated": tbptt(8, 4) | {"memory.gate": "learned"},
}
PLACED = {
    "gru": {"memory.kind": "gru", "memory.width": 16},
    "gru fuse": {"memory.kind": "gru", "memory.width": 16, "memory.place": "fuse"},
    "gru modulate": {"memory.kind": "gru", "memory.width": 16, "memory.place": "modulate"},
    "gru emptied": {"memory.kind": "gru", "memory.width": 16, "memory.emptied": True},
    "fast_weights": {"memory.kind": "fast_weights", "memory.width": 16, "memory.decay": 0.9},
    "fast_weights fuse": {"memory.kind": "fast_weights", "memory.width": 16, "memory.place": "fuse"},
    "fast_weights modulate": {"memory.kind": "fast_weights", "memory.width": 16, "memory.place": "modulate"},
    "fast_weights emptied": {"memory.kind": "fast_weights", "memory.place": "fuse", "memory.emptied": True},
}
FRAME = 2 * get_size("tiny").patches  # V·P
FRAMES = {
    "frame_stack": {"memory.kind": "frame_stack", "memory.k": 3, "memory.frame_tokens": FRAME},
    "frame_stack stride": {"memory.kind": "frame_stack", "memory.stride": 2, "memory.frame_tokens": FRAME},
    "frame_stack recomputed": {
        "memory.kind": "frame_stack",
        "memory.recomputed": True,
        "memory.frame_tokens": FRAME,
    },
    "first_frame": {"memory.kind": "first_frame", "memory.frame_tokens": FRAME},
}
FRAMES = {name: changes | {"model.reserve": 2 * FRAME} for name, changes in FRAMES.items()}
BANK = {"memory.kind": "bank", "memory.perceptual_width": 8, "memory.capacity": 3}
FIFO = {"memory.kind": "feature_fifo", "memory.capacity": 3}
STORED = {
    "bank": BANK,
    "bank crossing": BANK | {"memory.detached": False, "memory.place": "fuse", "memory.stored": "fused"},
    "bank modulate": BANK | {"memory.place": "modulate", "memory.details": "dexbotic", "memory.heads": 4},
    "bank perceptual": BANK | {"memory.streams": "perceptual", "memory.fusion": "add", "memory.time_code": "none"},
    "bank cognitive": BANK | {"memory.streams": "cognitive", "memory.consolidation": "fifo", "memory.detached": False},
    "bank emptied": BANK | {"memory.emptied": True, "memory.place": "fuse"},
    "bank of nothing": BANK | {"memory.capacity": 0},
    "feature_fifo": FIFO | {"memory.place": "fuse"},
    "feature_fifo crossing": FIFO | {"memory.detached": False},
    "feature_fifo emptied": FIFO | {"memory.emptied": True},
}
THEIRS = {
    "cell": {"memory.kind": "stranger_cell"},
    "store": {"memory.kind": "stranger_store"},
    "detached": {"memory.kind": "stranger_store", "memory.detached": True},
    "leaky": {"memory.kind": "leaky", "memory.decay": 0.5},
}
ALL = OURS | PLACED | FRAMES | STORED | THEIRS
every = pytest.mark.parametrize("name", ALL)


@pytest.fixture(scope="module", autouse=True)
def stranger(tmp_path_factory):
    """A package of somebody else, and the documented example as such a package."""
    text = DOCS.read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    name, place = re.search(r'entry-points."muvla.memory"\]\n(\w+) = "(.+?)"', text).groups()
    folder = tmp_path_factory.mktemp("site")
    points = {"stranger_cell": "stranger_memory:RecurrentCell", "stranger_store": "stranger_memory:Store", name: place}
    modules = {"stranger_memory.py": STRANGER, f"{place.partition(':')[0]}.py": code}
    write_package(folder, "stranger-memory", modules, {"muvla.memory": points})
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield


@pytest.fixture
def policy_of(cell_with):
    return lambda name, **changes: with_output(build_policy(cell_with({**ALL[name], **changes}), PLAIN_INTERFACE))


@pytest.fixture(scope="module")
def trainer_of(store, cell_with):
    """`trainer_of(name)` → an untrained trainer of a mechanism, shared by the cases that only look at it."""
    return lru_cache(maxsize=1)(lambda name: Trainer(cell_with({**ALL[name], "budget.updates": 1}), store))


def moment(slots, tick, seeds=None):
    seeds = seeds or list(range(slots))
    return Moment([tick] * slots, [Phase.DELAY] * slots, [str(s) for s in seeds], seeds)


def frames_of(policy, seeds, tick):
    """Frames that depend on the episode and the tick alone."""
    parts = [random_frames(policy, 1, seed=100 * seed + tick) for seed in seeds]
    fields = ("prefix", "text", "stop", "text_lengths", "proprio", *policy.memory.observes)
    return type(parts[0])(**{field: torch.cat([getattr(p, field) for p in parts]) for field in fields})


def played(policy, seeds, ticks, intervention=None):
    """The recurrence after some ticks of these episodes, and the actions of every tick."""
    loop, actions = Recurrence(policy, len(seeds), intervention), []
    for t in range(ticks):
        first = torch.full((len(seeds),), t == 0)
        output, _ = loop.tick(frames_of(policy, seeds, t), first, moment(len(seeds), t, list(seeds)))
        actions.append(output.actions)
    return loop, torch.stack(actions)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_every_registered_mechanism_is_here(cell_with):
    assert set(MECHANISMS.names()) >= {cell_with(changes).memory.kind for changes in ALL.values()}
    assert set(MECHANISMS.members) <= set(ALL), "a mechanism without this test"


@every
def test_a_configuration_is_read_written_and_changed(cell_with, name):
    cell = cell_with(ALL[name])
    assert from_dict(Cell, to_dict(cell)) == cell and changed(cell, {}) == cell
    assert type(cell.memory) is MECHANISMS.load(cell.memory.kind).Config
    assert MemoryConfig(**to_dict(cell.memory)) == cell.memory
    assert canonical(canonical(cell)) == canonical(cell)
    assert set(flatten(cell)) >= {f"memory.{field}" for field in to_dict(cell.memory)}


def test_a_change_of_the_mechanism_brings_its_fields(cell_with):
    cell = cell_with(parse_assignments(["memory.capacity=5", "memory.kind=stranger_store"]))
    assert cell.memory.capacity == 5 and "memory.m" not in flatten(cell)
    assert difference(cell, cell_with())["memory.capacity"] == (5, None)
    assert changed(cell, tbptt(8, 4)) == cell_with(tbptt(8, 4))
    with pytest.raises(MuvlaError) as info:
        changed(cell, {"memory.m": 4})
    assert info.value.field == "memory.m"
    with pytest.raises(MuvlaError) as info:
        cell_with({"memory.kind": "leaky", "memory.decay": 1.0})
    assert info.value.field == "memory.decay"


@pytest.mark.parametrize(
    "make", [lambda cell_with: MemoryConfig("token"), lambda cell_with: cell_with({"memory.kind": "token"})]
)
def test_an_unknown_mechanism_is_refused_with_the_nearest_match(cell_with, make):
    """It was built as TokenMemory."""
    with pytest.raises(MuvlaError) as info:
        make(cell_with)
    assert info.value.field == "memory.kind" and "tokens" in info.value.expected


def test_a_memory_without_tokens_is_not_no_memory(cell_with):
    """It had the identity of the cell without memory, and K was rewritten to W."""
    store, none = cell_with(THEIRS["store"]), cell_with(no_memory())
    ids = {
        content_hash(canonical(changed(store, change))) for change in ({}, {"memory.capacity": 4}, {"truncation": 2})
    }
    assert len(ids | {content_hash(canonical(none))}) == 4
    detached = changed(store, {"memory.detached": True})
    assert canonical(changed(detached, {"truncation": 2})) == canonical(detached), "no gradient, no K"


@every
def test_a_state_keeps_its_names_shapes_and_dtypes(policy_of, name):
    loop, _ = played(policy_of(name), (0, 1, 2), 4)
    initial = loop.memory.init_state(3)
    assert isinstance(loop.memory, Memory) and loop.memory.cost()["tokens"] == loop.memory.tokens
    assert loop.memory.through_model == (loop.memory.tokens > 0)
    for leaf, before in initial.items():
        assert (loop.state[leaf].shape, loop.state[leaf].dtype) == (before.shape, before.dtype)
    assert same(loop.memory.load(export(loop.state)), export(loop.state))
    assert loop.memory.recurs == any(not torch.equal(loop.state[leaf], initial[leaf]) for leaf in initial)
    with pytest.raises(MuvlaError) as info:
        loop.memory.load(
            {leaf: value[:, None].repeat(1, 2, *[1] * (value.ndim - 1)) for leaf, value in initial.items()}
        )
    assert info.value.field == "memory state"


@every
def test_a_cost_needs_no_values(policy_of, cell_with, name):
    """The plan counts before anything is allocated."""
    policy = policy_of(name)
    cost = memory_cost(cell_with(ALL[name]), PLAIN_INTERFACE)
    length = policy.layout().length
    assert cost == policy.memory.cost() | {"model_flops": language_flops(policy.config.size, length)}
    assert cost["parameters"] == sum(p.numel() for p in policy.memory.parameters())
    assert (cost["bytes"] > 0) == policy.memory.recurs and cost["tokens"] == policy.memory.tokens
    assert cost["flops"] > 0 or name not in PLACED


@every
def test_batched_equals_single(policy_of, name):
    policy = policy_of(name).eval()
    with torch.no_grad():
        together, actions = played(policy, (5, 6, 7), 4)
        alone, actions_alone = played(policy, (6,), 4)
    torch.testing.assert_close(actions[:, 1:2], actions_alone, rtol=1e-4, atol=1e-5)
    for leaf, value in alone.state.items():
        torch.testing.assert_close(together.state[leaf][1:2], value, rtol=1e-4, atol=1e-5)


@every
def test_idle_slots_keep_every_leaf(policy_of, name):
    """A leaf of two dimensions was broadcast; a leaf whose second dimension is B lost a write."""
    policy = policy_of(name).eval()
    with torch.no_grad():
        loop, _ = played(policy, (0, 1, 2), 2)
        before = export(loop.state)
        active = torch.tensor([True, False, True])
        loop.tick(frames_of(policy, (0, 1, 2), 2), torch.zeros(3, dtype=torch.bool), moment(3, 2), active)
        whole, _ = played(policy, (0, 1, 2), 3)
    for leaf, value in loop.state.items():
        assert value.shape == before[leaf].shape and torch.equal(value[1], before[leaf][1]), leaf
        torch.testing.assert_close(value[[0, 2]], whole.state[leaf][[0, 2]])
    assert loop.writes == [3, 2, 3]


@every
def test_a_reset_is_exact_and_per_slot(policy_of, name):
    loop, _ = played(policy_of(name), (0, 1, 2), 3)
    after = loop.memory.reset(loop.state, torch.tensor([False, True, False]))
    for leaf, initial in loop.memory.init_state(3).items():
        assert torch.equal(after[leaf][1], initial[1]) and torch.equal(after[leaf][[0, 2]], loop.state[leaf][[0, 2]])


@every
def test_an_export_of_the_recurrence_continues(policy_of, name):
    policy = policy_of(name).eval()
    with torch.no_grad():
        loop, _ = played(policy, (0, 1), 2, parse_intervention("zero@every(2)"))
        again = Recurrence(policy, 2, parse_intervention("zero@every(2)"))
        again.load(loop.export())
        for each in (loop, again):
            each.tick(frames_of(policy, (0, 1), 2), torch.zeros(2, dtype=torch.bool), moment(2, 2))
    assert same(loop.state, again.state) and (loop.writes, loop.fired) == (again.writes, again.fired)


@every
def test_gradient_reaches_earlier_writes_exactly_where_declared(store, cell_with, name):
    """Within a window that is one block, on the trainer's own path."""
    cell = cell_with({**ALL[name], "budget.slots": 2, "truncation": 8})
    trainer, written = Trainer(cell, store), []
    with_output(trainer.policy)
    write = trainer.policy.memory.write

    def remember(*args):
        state = write(*args)
        for leaf in float_leaves(state).values():
            if leaf.requires_grad:
                leaf.retain_grad()
        written.append(float_leaves(state))
        return state

    trainer.policy.memory.write = remember
    window = trainer.stream.window(8)
    weight = torch.zeros_like(window.weight)
    weight[3] = 1
    is_first = torch.zeros_like(window.is_first)
    is_first[0] = True
    trainer.backward(with_fields(window, weight=weight, is_first=is_first))
    reached = any(leaf.grad is not None and bool(leaf.grad.abs().sum() > 0) for leaf in written[0].values())
    assert reached == cell.memory.gradient_crosses


@every
def test_nothing_of_action_reaches_the_memory(policy_of, name):
    policy = policy_of(name).eval()
    with torch.no_grad():
        loop, _ = played(policy, (0, 1), 2)
    assert leak_test(policy, random_frames(policy, 2), loop.state) == 0.0
    if name in ("store", "tokens", "cell"):
        unguarded = policy_of(name, **{"model.guard": "full"}).eval()
        assert leak_test(unguarded, random_frames(unguarded, 2), loop.state) > 0, "the test sees a leak"


@every
def test_it_trains_and_continues_from_a_checkpoint(store, cell_with, tmp_path, name):
    cell = cell_with(ALL[name])
    trainer = Trainer(cell, store)
    trainer.step()
    saved = native.load(native.save(tmp_path, make_checkpoint(trainer)))
    assert trainer.leak_test() == 0.0 and trainer.memory_rms() >= 0
    loss = trainer.step()[0]
    again = Trainer(cell, store)
    resume(again, saved)
    assert again.step()[0] == loss and same(again.recurrence.state, trainer.recurrence.state)


@pytest.mark.parametrize(
    "intervention", [None, "zero", "noise_matched", "noise_unit", "freeze_first", "empty", "stale(1)"]
)
@every
def test_episodes_run_with_and_without_interventions(trainer_of, name, intervention):
    trainer = trainer_of(name)
    if intervention and not trainer.policy.memory.has_state:
        pytest.skip("there is nothing to intervene on")
    outcomes, parsed = [], parse_intervention(intervention)
    memory = trainer.policy.memory
    if parsed and not parsed.whole_state and not float_leaves(memory.init_state(1)):
        pytest.skip("refused: the state holds no floating-point number (tests/test_frames.py)")
    actor = PolicyActor(trainer.policy, trainer.statistics, SHORT, parsed)
    rollout = Rollout(actor, lambda: make_env(SHORT.task))
    rollout.run(range(SHORT.seed, SHORT.seed + SHORT.episodes), outcomes.append)
    rollout.close()
    assert [outcome.error for outcome in outcomes] == [None] * SHORT.episodes
    assert intervention is None or all(outcome.info["fired"] > 0 for outcome in outcomes)


def test_element_wise_interventions_act_on_valid_float_entries_alone(policy_of):
    """Integer leaves crashed `noise_matched`, and `noise_unit` turned time stamps into noise."""
    policy = policy_of("store").eval()
    with torch.no_grad():
        plain, _ = played(policy, (0, 1), 2)
        for name, rows in (("noise_unit/after_write@1", [0, 1]), ("zero[1:3]/after_write@1", [1])):
            loop, _ = played(policy, (0, 1), 2, parse_intervention(name))
            assert same(
                {k: loop.state[k] for k in ("steps", "length")}, {k: plain.state[k] for k in ("steps", "length")}
            )
            differs = (loop.state["entries"] != plain.state["entries"]).any(dim=2).any(dim=0)
            assert differs.nonzero().flatten().tolist() == rows, "the third entry holds nothing yet"


def test_whole_state_interventions_move_all_leaves_together(policy_of):
    policy = policy_of("store").eval()
    with torch.no_grad():
        loop, _ = played(policy, (0, 1), 4, parse_intervention("empty@2"))
        fresh, _ = played(policy, (0, 1), 1)
    assert loop.state["length"].tolist() == [1, 1] and loop.state["steps"][:, 0].tolist() == [3, 3]
    assert fresh.state["length"].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("name", "intervention"),
    [
        ("cell", "zero[0:1]"),  # no units
        ("cell", "permute_tokens"),
        ("cell", "noise_norm"),  # undefined for the mechanism
        ("store", "zero[2:4]"),  # three entries
        ("store", "drop"),  # no MEMORY tokens
        ("store", "empty[0:1]"),  # the length belongs to all entries
        ("none", "zero"),
    ],
)
def test_what_is_undefined_for_a_mechanism_is_refused(policy_of, name, intervention):
    with pytest.raises(MuvlaError):
        require_tokens(parse_intervention(intervention), policy_of(name))


PROBED = ["cell", "store", "leaky", "tokens", "gru", "gru fuse", "fast_weights modulate", "frame_stack", "first_frame"]
PROBED += ["bank", "bank modulate", "feature_fifo"]


@pytest.mark.parametrize("name", PROBED)
def test_probes_read_any_mechanism(subject_of, policy_of, cell_with, name):
    """The Jacobian asked integer leaves for gradient; traces refused a memory without tokens."""
    policy = policy_of(name).eval()
    norms = jacobian_norms(policy, frames_of(policy, (0, 0, 0), 0))
    assert norms.shape == (2,) and (norms > 0).all()
    traces = traces_of(subject_of(cell_with(ALL[name]), 2))
    assert all(set(trace.written) == set(policy.memory.state_spec()) for trace in traces)


def test_configurations_import_no_torch():
    """An environment process reads configurations."""
    import subprocess
    import sys

    code = "import sys, muvla.config, muvla.memory.registry; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
