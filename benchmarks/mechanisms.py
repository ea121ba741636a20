"""Speed and memory of every mechanism against `none`, and of the batched bank against a loop over slots.

python -m benchmarks.mechanisms             size tiny; prints the tables and writes benchmarks/mechanisms.md
python -m benchmarks.mechanisms tiny small  both sizes; small wants a GPU

Legend: B slots, L capacity, N tokens of an entry, D width.
"""

from __future__ import annotations

import datetime
import sys
import tempfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.memory import added_peak, in_a_process
from benchmarks.pairs import Comparison, compare, table
from muvla.checkpoints.build import build_policy
from muvla.config import BudgetConfig, Cell, DataConfig, DatasetConfig, MemoryConfig, ModelConfig, TaskConfig
from muvla.config.sizes import get_size
from muvla.data.collect import collect
from muvla.data.store import EpisodeStore
from muvla.envs.phases import Phase
from muvla.memory.bank_stream import BankStream, StreamSettings
from muvla.memory.registry import MECHANISMS
from muvla.models.policy import Interface
from muvla.recurrence import Moment, Recurrence
from muvla.training.trainer import Trainer
from muvla.utils.io import write_atomically
from muvla.utils.provenance import CODE_VERSION, hardware_line

HERE = Path(__file__).parent
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ROUNDS = 7
DATASET = DatasetConfig(TaskConfig("RecallPosition3-v0"), episodes=24)
SLOTS, WINDOW, QUERIES, CAMERAS = 8, 8, 16, 2
CAPACITIES = (16, 64, 256)
STREAMS = {"tiny": ((8, 256), (1, 96)), "small": ((128, 256), (1, 640))}  # (N, D) of perceptual and cognitive entries


def variants(size: str) -> dict[str, MemoryConfig]:
    """Every registered mechanism with its default fields, and the bank at each capacity."""
    frame = {"frame_tokens": CAMERAS * get_size(size).patches}
    required = {"dummy": {"m": 4}, "tokens": {"m": 4}, "frame_stack": frame, "first_frame": frame}
    configs = {
        name: MemoryConfig(name, **required.get(name, {}))
        for name in MECHANISMS.members
        if name not in ("none", "bank")
    }
    banks = {
        f"bank, L = {L}, {place}": MemoryConfig("bank", capacity=L, place=place)
        for place, capacities in (("context", CAPACITIES[:1]), ("fuse", CAPACITIES))
        for L in capacities
    }
    return configs | banks


def cell_of(size: str, memory: MemoryConfig) -> Cell:
    return Cell(
        model=ModelConfig(get_size(size), chunk=4, reserve=max(8, memory.tokens)),
        data=DataConfig(DATASET),
        memory=memory,
        truncation=WINDOW,
        budget=BudgetConfig(slots=SLOTS, window=WINDOW, updates=1_000),
    )


def update(store: EpisodeStore, size: str, memory: MemoryConfig) -> Callable[[], None]:
    """Return a call that makes an update."""
    trainer = Trainer(cell_of(size, memory), store, device=DEVICE)

    def run() -> None:
        trainer.step()
        _wait()

    return run


def queries(interface: Interface, size: str, memory: MemoryConfig) -> Callable[[], None]:
    """Return a call that answers one query of each of QUERIES slots, of an episode that goes on."""
    policy = build_policy(cell_of(size, memory), interface).to(DEVICE).eval()
    recurrence, image_size = Recurrence(policy, QUERIES), get_size(size).image_size
    images = torch.zeros(QUERIES, interface.cameras, 3, image_size, image_size, dtype=torch.uint8, device=DEVICE)
    proprio = torch.zeros(QUERIES, interface.proprio_dim, device=DEVICE)
    ids = torch.ones(QUERIES, interface.text, dtype=torch.int64, device=DEVICE)
    lengths = torch.full((QUERIES,), interface.text, device=DEVICE)
    tick = 0

    @torch.no_grad()
    def run() -> None:
        nonlocal tick
        seeds = list(range(QUERIES))
        moment = Moment([tick] * QUERIES, [Phase.DELAY] * QUERIES, [str(seed) for seed in seeds], seeds)
        is_first = torch.full((QUERIES,), tick == 0, device=DEVICE)
        recurrence.tick(policy.encode(images, proprio, ids, lengths), is_first, moment)
        tick += 1
        _wait()

    return run


def peak(size: str, memory: MemoryConfig) -> float:
    """Return the MB that an update adds to the memory in use; called in a process of its own."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        run = update(collect(DATASET, Path(folder)), size, memory)
        run()  # the optimizer's state is there from the first update on
        return added_peak(run, DEVICE)


def mechanisms(store: EpisodeStore, size: str, rounds: int = ROUNDS) -> list[list[str]]:
    """Return a line per mechanism: training and queries against `none`, bytes per slot, peak memory."""
    none, rows = MemoryConfig("none"), []
    trainer = Trainer(cell_of(size, none), store, device=DEVICE)
    interface = trainer.interface
    for name, memory in {"none": none, **variants(size)}.items():
        trained = compare(update(store, size, none), update(store, size, memory), rounds)
        asked = compare(queries(interface, size, none), queries(interface, size, memory), rounds)
        cost = build_policy(cell_of(size, memory), interface).memory.cost()
        megabytes = in_a_process(peak, size, memory)
        rows.append(
            [
                name,
                *_rates(trained, SLOTS * WINDOW, "frames/s"),
                *_rates(asked, QUERIES, "queries/s"),
                f"{cost['bytes']:,}",
                f"{megabytes:,.0f} MB",
            ]
        )
    return rows


def _rates(pairs: Comparison, work: int, unit: str) -> list[str]:
    """The alternative's rate, and its ratio to the baseline's."""
    _, rate, ratio = pairs.line(work, unit)
    return [rate, ratio]


class SlotLoop:
    """A bank as the published code computes it: a loop over slots, and a list of entries for each."""

    def __init__(self, module: BankStream, slots: int):
        self.module, self.banks = module, [[] for _ in range(slots)]

    def tick(self, tokens: Tensor, now: int) -> Tensor:
        """(B, N, D) fused tokens of one tick, after which every slot has one more entry."""
        return torch.cat([self._frame(bank, x[None], now) for bank, x in zip(self.banks, tokens, strict=True)])

    def _frame(self, bank: list[tuple[int, Tensor]], x: Tensor, now: int) -> Tensor:
        module, h = self.module, x
        if bank:
            entries = torch.stack([entry for _, entry in bank], dim=1)
            times = torch.tensor([[time for time, _ in bank]], device=x.device)
            h, _ = module.retrieval(x, entries, module.time_code(times), torch.ones_like(times, dtype=torch.bool))
        fused, _ = module.fusion(x, h)
        bank.append((now, x))
        if len(bank) > module.settings.capacity:
            alike = [torch.nn.functional.cosine_similarity(a, b, dim=-1).mean() for (_, a), (_, b) in pairwise(bank)]
            i = int(torch.stack(alike).argmax())
            bank[i : i + 2] = [(bank[i][0], (bank[i][1] + bank[i + 1][1]) / 2)]
        return fused


class Batched:
    """The bank of `muvla.memory`: one call for all slots."""

    def __init__(self, module: BankStream, slots: int):
        self.module, self.store = module, module.empty_store(slots)

    def tick(self, tokens: Tensor, now: int) -> Tensor:
        """(B, N, D) fused tokens of one tick."""
        times = torch.full((len(tokens),), now, device=tokens.device)
        fused = self.module.lookup(tokens, self.store, times).fused
        self.store = self.module.append(self.store, tokens, times)
        return fused


def banks(size: str, rounds: int = ROUNDS) -> list[list[str]]:
    """Return a line per capacity and stream: one tick of full stores, as a loop over slots and as one batch."""
    rows = []
    for tokens, width in STREAMS[size]:
        for capacity in CAPACITIES:
            module = BankStream(tokens, width, StreamSettings(capacity)).to(DEVICE).eval()
            sides = [_ticks(side(module, SLOTS), tokens, width, capacity + 2) for side in (SlotLoop, Batched)]
            pairs = compare(*sides, rounds)
            rows.append([f"L = {capacity}, N = {tokens}, D = {width}", *pairs.line(SLOTS, "lookups/s")])
    return rows


def _ticks(bank: SlotLoop | Batched, tokens: int, width: int, filled: int) -> Callable[[], None]:
    """Return a call that makes one tick; before, `filled` ticks fill the stores."""
    generator, now = torch.Generator().manual_seed(0), 0

    @torch.no_grad()
    def run() -> None:
        nonlocal now
        bank.tick(torch.randn(SLOTS, tokens, width, generator=generator).to(DEVICE), now)
        now += 1
        _wait()

    for _ in range(filled):
        run()
    return run


def _wait() -> None:
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def main(sizes: tuple[str, ...] = ("tiny",), rounds: int = ROUNDS, here: Path = HERE) -> None:
    torch.set_num_threads(1)
    lines = [
        "# Speed of the memory mechanisms",
        "",
        f"Generated by `python -m benchmarks.mechanisms {' '.join(sizes)}` on {datetime.date.today()}: "
        f"{hardware_line()}, 1 thread; code version {CODE_VERSION}; on {DEVICE}. Ratios are medians of {rounds} "
        "interleaved pairs with the median's 95 % interval; above 1 the right side is faster. Training has "
        f"{SLOTS} slots and W = K = {WINDOW}, an evaluation {QUERIES} slots with one tick per query. Peak memory is "
        "what an update adds. No cost grows with the episode: stores have a fixed size, and cost what their capacity "
        "L costs from the first tick on.",
        "",
    ]
    with tempfile.TemporaryDirectory() as folder:
        store = collect(DATASET, Path(folder))
        for size in sizes:
            head = ["mechanism", "training", "against none", "evaluation", "against none", "bytes per slot", "peak"]
            lines += [f"## {size}", "", *table(head, mechanisms(store, size, rounds))]
            lines += [
                f"One tick of {SLOTS} full stores that merge: search, fusion and write. The loop over slots has lists "
                "of entries, as the published code.",
                "",
                *table(["", "loop over slots", "batched", "ratio"], banks(size, rounds)),
            ]
    for size in STREAMS:
        if size not in sizes:
            lines += [f"Size {size}: not run.", ""]
    text = "\n".join(lines)
    write_atomically(here / "mechanisms.md", text.encode())
    print(text)


if __name__ == "__main__":
    main(tuple(sys.argv[1:]) or ("tiny",))
