"""Prepare the process for computing: threads, device, and a clean stop."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable

from muvla.cli.output import detail
from muvla.errors import MuvlaError


def prepare(device: str, threads: int, compile: bool, one_process: bool = True) -> str:
    """Set the number of threads and check the device.

    Args:
        device: auto, cpu or cuda.
        threads: CPU threads of this process.
        compile: True if the step is going to be compiled.
        one_process: False for a verb that torchrun may start.

    Returns:
        The device, `auto` resolved.
    """
    import torch

    from muvla.models.compilation import require_compiler
    from muvla.training.distributed.torchrun import is_launched
    from muvla.utils.devices import choose_device
    from muvla.utils.provenance import CODE_VERSION

    if one_process and is_launched():
        raise MuvlaError("torchrun", got="another verb", expected="train", remedy="start this verb without torchrun")
    torch.set_num_threads(threads)
    chosen = choose_device(device)
    if compile:
        require_compiler(chosen)
    detail(f"device {chosen}, {threads} threads, code {CODE_VERSION}")
    return chosen


def stop_on_signal(silent: bool = False) -> Callable[[], bool]:
    """Let the first Ctrl-C or SIGTERM ask for a clean stop, and the second one interrupt at once.

    Args:
        silent: print nothing when asked.

    Returns:
        A function that tells whether a stop was asked for.
    """
    asked: list[bool] = []

    def ask(number, frame) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(True)
        if not silent:
            print("\nstopping at the next update or episode (again to stop at once)", file=sys.stderr)

    signal.signal(signal.SIGINT, ask)
    signal.signal(signal.SIGTERM, ask)
    return lambda: bool(asked)


def training_options(
    gradient_checkpointing: bool,
    compile: bool,
    cache_vision: bool,
    one_pass: bool,
    no_diagnostics: bool,
    keep_checkpoints: int,
):
    """The options of a training. No option changes a train id.

    Args:
        gradient_checkpointing: recompute activations in the backward pass.
        compile: compile the step.
        cache_vision: store the features of frozen towers.
        one_pass: make one pass of the language model per window.
        no_diagnostics: leave the diagnostics out of the log.
        keep_checkpoints: how many to keep.
    """
    from muvla.training.options import TrainingOptions

    return TrainingOptions(
        checkpoint_gradients=gradient_checkpointing,
        compiled=compile,
        cached_vision=cache_vision,
        one_pass=one_pass,
        diagnostics=not no_diagnostics,
        keep=keep_checkpoints,
    )
