"""One rank of tests/test_ranks.py, run by torchrun: trains every case of a file and writes down what came of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from muvla.checkpoints import native as ckpt
from muvla.config import Cell
from muvla.config.serialization import from_dict
from muvla.data.mixture import join
from muvla.data.store import EpisodeStore
from muvla.errors import MuvlaError, NotAMeasurement
from muvla.interventions import parse_intervention
from muvla.training import run
from muvla.training.distributed import fsdp
from muvla.training.distributed import torchrun as module
from muvla.training.distributed.torchrun import join_ranks
from muvla.training.resume import make_checkpoint, resume
from muvla.training.run import train_to_the_end
from muvla.training.trainer import Trainer

GROUPS = ("vision.", "language.", "proprio.", "head.", "memory.")


def whole(trainer: Trainer) -> dict[str, torch.Tensor]:
    """On every rank, copied."""
    everything = fsdp.gather(dict(trainer.policy.named_parameters()), keep=True)
    return {name: value.clone() for name, value in everything.items()}


def updates(trainer: Trainer, case: dict, folder: Path, ranks) -> dict:
    """Trains on from `from` if there is one, and leaves parameters, and a checkpoint to train on from."""
    if case.get("from"):
        resume(trainer, ckpt.load(ckpt.latest(Path(case["from"]))))
    trainer.leak_test()
    steps = [trainer.step() for _ in range(case["updates"])]
    save_file(whole(trainer), folder / f"{case['name']}.{ranks.rank}.safetensors")
    checkpoint, rms = make_checkpoint(trainer), trainer.memory_rms()
    ranks.on_main(lambda: str(ckpt.save(folder / case["name"], checkpoint)))
    return {"steps": steps, "memory_rms": rms, "collected": collected}


def perturbed(trainer: Trainer, case: dict, folder: Path, ranks) -> dict:
    """Of one tensor of every group rank 1 has another gradient, and of one it has none."""
    own, add_gradients = dict(trainer.policy.named_parameters()), ranks.add_gradients
    chosen = [next(n for n, p in own.items() if n.startswith(group) and p.requires_grad) for group in GROUPS]
    before = whole(trainer)

    def skewed(parameters, loss):
        if ranks.rank == 1:
            for name in chosen:
                own[name].grad += 1
            own["head.fc_out.bias"].grad = None
        return add_gradients(parameters, loss)

    ranks.add_gradients = skewed
    trainer.step()
    del ranks.add_gradients
    trainer.check_ranks()
    after = whole(trainer)
    save_file(after, folder / f"{case['name']}.{ranks.rank}.safetensors")
    return {"moved": [name for name in [*chosen, "head.fc_out.bias"] if not torch.equal(before[name], after[name])]}


def diverged(trainer: Trainer, case: dict, folder: Path, ranks) -> dict:
    """Rank 1 has one number of a head's by a bit another one."""
    if ranks.rank == 1:
        with torch.no_grad():
            weight = trainer.policy.head.fc_in.weight
            weight[0, 0] = torch.nextafter(weight[0, 0], torch.tensor(9.0))
    trainer.check_ranks()
    return {}


def elsewhere(trainer: Trainer, case: dict, folder: Path, ranks) -> dict:
    """What happens on rank 1 alone."""
    if ranks.rank == 1:

        def broken(window):
            raise NotAMeasurement("loss", got="nan", expected="finite numbers", remedy="none")

        def surprised(window):
            raise KeyError("frame")

        trainer.backward = {"known": broken, "unknown": surprised}[case["error"]]
    trainer.step()
    return {}


def everyday(trainer: Trainer, case: dict, folder: Path, ranks) -> dict:
    """All that a training writes, stopped by rank 1 after two updates, and continued."""
    run.LOG_EVERY, asked = 1, iter([False, True])
    train_to_the_end(trainer, folder / case["name"], should_stop=lambda: next(asked) and ranks.rank == 1)
    again = Trainer(trainer.cell, trainer.stream.store, ranks=ranks)
    train_to_the_end(again, folder / case["name"])
    return {"updates": [trainer.update, again.update]}


def collect(*arguments, _collect=module.TorchRanks._collect, **named):
    collected.append(getattr(arguments[1], "__name__", "") + f" {getattr(arguments[2], 'dtype', '')}")
    return _collect(*arguments, **named)


if __name__ == "__main__":
    torch.set_num_threads(1)
    told = json.loads(Path(sys.argv[1]).read_text())
    folder, results = Path(sys.argv[1]).parent, {}
    module.TorchRanks._collect = collect
    with join_ranks(sharded=False) as ranks:
        for case in told["cases"]:
            store = join([EpisodeStore(Path(path)) for path in case.get("stores", [told["store"]])])
            cell, ranks.sharded, collected = from_dict(Cell, case["cell"]), case.get("sharded", False), []
            try:
                trainer = Trainer(
                    cell,
                    store,
                    parse_intervention(cell.intervention),
                    told["device"],
                    case.get("recompute", False),
                    ranks,
                )
                collected.clear()
                results[case["name"]] = globals()[case.get("do", "updates")](trainer, case, folder, ranks)
            except (MuvlaError, KeyError) as error:
                results[case["name"]] = {"error": f"{type(error).__name__}: {error}"}
        (folder / f"results.{ranks.rank}.json").write_text(json.dumps(results))
