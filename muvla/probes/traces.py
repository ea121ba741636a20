"""Traces: the memory of whole episodes, tick by tick, recorded once in half precision for all measurements.

    runs/<train id>/probes/traces/<hash of all that they depend on>/
      <episode seed>.safetensors   states and tokens of one episode; the metadata hold labels, events and outcome

A file is written when its episode has ended. A stopped recording continues with the episodes that have no file.
Numbers are stored as float16 (11 bits: relative rounding of at most 2^-11) and returned as float32 of the float16. So a
measurement is the same whether the episodes ran just now or earlier.

Legend: T ticks of an episode, m memory width, D width.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import torch
from safetensors import SafetensorError

from muvla.config.serialization import content_hash
from muvla.envs.phases import events
from muvla.envs.registry import backends, step_limit
from muvla.errors import DiskError, MuvlaError
from muvla.evaluation.actor import Tick
from muvla.evaluation.context import default_workers
from muvla.evaluation.episode import Outcome, RunningEpisode
from muvla.evaluation.evaluate import require_prompts
from muvla.evaluation.members import modules_in_use
from muvla.evaluation.policy_actor import PolicyActor
from muvla.evaluation.recorder import Recorder
from muvla.evaluation.rollout import Rollout
from muvla.memory.base import Memory
from muvla.models.compilation import is_compiled
from muvla.models.policy import Policy
from muvla.probes.base import Subject
from muvla.utils.io import write_atomically
from muvla.utils.provenance import NO_NUMBER, provenance

FOLDER = "traces"
SAMPLED = 64  # numbers per parameter that tell two trainings of one cell apart
# Of an episode; `identity` in tasks where it is not the target's place, `cued` where the delay changes the target.
LABELS = ("target", "identity", "cued")


@dataclass(frozen=True)
class Trace:
    """One episode of T ticks; arrays of memory are float32 with the precision of float16."""

    seed: int
    written: dict[str, np.ndarray]  # leaf → (T, …), the state as each tick left it
    read: np.ndarray  # (T, m, D), the tokens that each tick read
    step: np.ndarray  # (T,) of the episode, at each tick
    phase: np.ndarray  # (T,)
    labels: dict[str, int]  # those of LABELS that the episode has
    events: dict[str, int]  # event → step
    measured: dict[str, Any]  # choice, success and lengths, as in the episode's row

    @property
    def memory(self) -> np.ndarray:
        """Return (T, n, D) written: all leaves as tokens if they have one width, else as one long token."""
        leaves = [leaf for _, leaf in sorted(self.written.items())]
        if all(leaf.ndim == 3 for leaf in leaves) and len({leaf.shape[2] for leaf in leaves}) == 1:
            return np.concatenate(leaves, axis=1)
        return np.concatenate([leaf.reshape(len(leaf), 1, -1) for leaf in leaves], axis=2)


class TraceRecorder(Recorder):
    """Records the memory of every episode and hands it to `on_trace` when the episode ends."""

    def __init__(self, on_trace: Callable[[Trace], None]):
        self.on_trace = on_trace
        self.errors: dict[int, str] = {}  # by seed, of the episodes that failed
        self._ticks: dict[int, list[tuple[dict[str, np.ndarray], np.ndarray, int, int]]] = {}

    def episode_begins(self, episode: RunningEpisode) -> None:
        self._ticks[episode.seed] = []

    def after_tick(self, tick: Tick) -> None:
        episode = tick.episode
        written = {name: _half(leaf) for name, leaf in tick.written.items()}
        recorded = written, _half(tick.read), episode.step, int(episode.info["phase"])
        self._ticks[episode.seed].append(recorded)

    def episode_ends(self, episode: RunningEpisode, outcome: Outcome) -> None:
        ticks = self._ticks.pop(outcome.seed)
        if outcome.error:
            self.errors[outcome.seed] = outcome.error
        else:
            self.on_trace(_trace(episode, ticks, outcome))


def _trace(episode: RunningEpisode, ticks: list[tuple], outcome: Outcome) -> Trace:
    written, read, step, phase = zip(*ticks, strict=True)
    return Trace(
        seed=outcome.seed,
        written={name: np.stack([state[name] for state in written]).astype(np.float32) for name in written[0]},
        read=np.stack(read).astype(np.float32),
        step=np.array(step, np.int32),
        phase=np.array(phase, np.int32),
        labels={name: int(episode.info[name]) for name in LABELS if episode.info.get(name) is not None},
        events=events(episode.info),
        measured=outcome.info,
    )


def _half(tensor: torch.Tensor) -> np.ndarray:
    """Return half precision on the CPU. Raises MuvlaError for numbers beyond its range."""
    half = tensor.detach().to("cpu", torch.float16).numpy()
    if not np.isfinite(half).all():
        raise MuvlaError(
            "traces",
            got=f"a memory with numbers up to {tensor.abs().max().item():.3g}",
            expected="at most 65504 in magnitude, the range of half precision",
            remedy="leave out the measurements that read traces for this cell",
        )
    return half


# --- on disk --------------------------------------------------------------------------------------------------------


def write_trace(folder: Path, trace: Trace) -> None:
    """Write `<seed>.safetensors`, whole or not at all."""
    tensors = {f"written/{name}": leaf.astype(np.float16) for name, leaf in trace.written.items()}
    tensors |= {"read": trace.read.astype(np.float16), "step": trace.step, "phase": trace.phase}
    about = {name: value for name, value in asdict(trace).items() if name in ("labels", "events", "measured")}
    content = safetensors.numpy.save(tensors, metadata={"episode": json.dumps(about)})
    write_atomically(folder / f"{trace.seed}.safetensors", content)


def read_trace(path: Path) -> Trace:
    """Read a trace. Raises MuvlaError for a file that is cut short or is no trace."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            about = json.loads(file.metadata()["episode"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dictionary)
        return Trace(
            seed=int(path.stem),
            written={
                name.removeprefix("written/"): leaf.astype(np.float32)
                for name, leaf in tensors.items()
                if name.startswith("written/")
            },
            read=tensors["read"].astype(np.float32),
            step=tensors["step"],
            phase=tensors["phase"],
            **about,
        )
    except (SafetensorError, OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise MuvlaError(
            str(path),
            got=f"unreadable ({type(error).__name__}: {error}), {_size(path)} bytes",
            expected="the whole trace of an episode",
            remedy="remove the file; the episode then runs again",
        ) from None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


# --- recording ------------------------------------------------------------------------------------------------------


def traces_folder(subject: Subject) -> Path:
    """Return the folder beside those of the measurements, which share it.

    Traces of another training, protocol, code, machine or precision have another folder. They are neither used nor
    removed.
    """
    policy, protocol = subject.policy, subject.protocol
    device = next(policy.parameters()).device.type
    members = modules_in_use(policy, [protocol.task.name])
    record = provenance(device, backends(protocol.task), is_compiled(policy), members=members)
    depends_on = {
        "weights": _weights(policy),
        "model": content_hash(policy.config),
        "protocol": protocol.hash,
        **{name: value for name, value in record.items() if name not in NO_NUMBER},
    }
    return subject.folder.parent / FOLDER / content_hash(depends_on)


def traces_of(subject: Subject) -> list[Trace]:
    """Return one trace per episode of the subject, in the order of its seeds.

    Episodes without a file run first, after a line on stderr with the bytes that they may take.

    Raises:
        MuvlaError: the policy has no memory, an episode fails, or a trace is cut short.
        DiskError: the disk is too small.
    """
    if not subject.policy.memory.has_state:
        raise MuvlaError(
            "probe",
            got="a cell without memory",
            expected="a memory whose states can be recorded",
            remedy="leave this measurement out, or choose a cell with a memory",
        )
    folder = traces_folder(subject)
    missing = [seed for seed in subject.seeds if not (folder / f"{seed}.safetensors").exists()]
    if missing:
        _record(subject, folder, missing)
    return [read_trace(folder / f"{seed}.safetensors") for seed in subject.seeds]


def _record(subject: Subject, folder: Path, seeds: list[int]) -> None:
    require_prompts(subject.policy, [subject.protocol])
    protocol = subject.protocol
    _require_room(folder, len(seeds), subject)
    recorder = TraceRecorder(lambda trace: write_trace(folder, trace))
    actor = PolicyActor(subject.policy, subject.statistics, protocol)
    environments = min(default_workers(protocol), len(seeds))
    with closing(Rollout(actor, subject.open_env, [recorder], environments)) as rollout:
        rollout.run(seeds, check_stop=subject.check_stop)
    if errors := recorder.errors:
        seed, error = next(iter(errors.items()))
        raise MuvlaError(
            f"traces of {subject.protocol.id}",
            got=f"{len(errors)} episodes with errors, seed {seed}: {error}",
            expected="every episode",
            remedy="run it again: only these episodes run, the others have their files",
        )


def most_bytes(memory: Memory, episodes: int, ticks: int) -> int:
    """Return episodes × ticks × (numbers of the state + m·D read) × 2.

    Names and phases add less than 1 % for a memory of a hundred numbers or more.
    """
    numbers = sum(math.prod(shape) for shape in memory.state_spec().values()) + memory.tokens * memory.embedding
    return episodes * ticks * numbers * 2


def _require_room(folder: Path, episodes: int, subject: Subject) -> None:
    protocol, memory = subject.protocol, subject.policy.memory
    steps = protocol.step_limit or step_limit(protocol.task)
    ticks = math.ceil(steps / (protocol.h if protocol.tick == "call" else 1))
    need = most_bytes(memory, episodes, ticks)
    print(
        f"traces: {episodes} episodes of at most {ticks} ticks, at most {need / 1e6:.3g} MB in {folder}",
        file=sys.stderr,
        flush=True,
    )
    existing = next(parent for parent in folder.parents if parent.exists())
    if need > (free := shutil.disk_usage(existing).free):
        raise DiskError(
            str(folder),
            got=f"{free / 1e6:.3g} MB free",
            expected=f"{need / 1e6:.3g} MB for the traces",
            remedy="free some space, or measure fewer episodes",
        )


def _weights(policy: Policy) -> str:
    """Return a hash over up to 64 evenly spaced numbers of every tensor: an update changes all trained tensors."""
    digest = hashlib.sha256()
    for name, value in sorted(policy.state_dict().items()):
        flat = value.detach().flatten()
        sample = flat[:: max(1, flat.numel() // SAMPLED)].cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(sample.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
