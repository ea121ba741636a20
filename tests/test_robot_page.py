"""The loops of docs/robot.md drive a robot against a server, word for word."""

import asyncio
import inspect
import itertools
import re

import numpy as np
import pytest

from helpers.paths import ROOT
from helpers.serving import HashSlots, alone, frame, running
from muvla.serving.sessions import Limits

PAGE = (ROOT / "docs" / "robot.md").read_text(encoding="utf-8")
LOOPS = dict(re.findall(r"^## ([^\n]+)\n\n```python\n(.*?)```", PAGE, flags=re.MULTILINE | re.DOTALL))


def test_the_page_has_a_loop_for_every_wire():
    assert list(LOOPS) == ["vla-eval's websocket", "openpi's websocket", "HTTP"]
    assert all(len(loop.splitlines()) <= 32 for loop in LOOPS.values())


@pytest.mark.parametrize("wire", LOOPS)
def test_a_loop_moves_the_robot_by_the_policy(wire):
    frames, moves = [frame(i) for i in range(4)], []
    images, states = itertools.cycle(frames), itertools.cycle(frames)
    namespace = {
        "camera": lambda: next(images).images[0],
        "state": lambda: next(states).proprio,
        "move": moves.append,
    }
    exec(LOOPS[wire], namespace)
    with running(HashSlots(), limits=Limits(window=0)) as server:
        done = namespace["run"](f"http://127.0.0.1:{server.port}", "touch it", 4, period=0.01)
        if inspect.iscoroutine(done):
            asyncio.run(done)
    assert np.array_equal(np.array(moves, np.float32), alone(frames))
