"""A robot loop of openpi-client against `muvla serve`; prints OK if every action is that of an episode alone. Runs in
openpi-client's environment."""

import hashlib
import sys

import numpy as np
from openpi_client.action_chunk_broker import ActionChunkBroker
from openpi_client.websocket_client_policy import WebsocketClientPolicy

CHUNK, STEPS = 4, 8


def frame(seed):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (1, 8, 8, 3), dtype=np.uint8)[0], rng.standard_normal(3).astype(np.float32)


def chunk_of(memory):
    numbers = np.frombuffer(hashlib.blake2b(memory, digest_size=CHUNK * 2).digest(), dtype=np.uint8)
    return (numbers.astype(np.float32) / 255).reshape(CHUNK, 2)


address, horizon = sys.argv[1], int(sys.argv[2])
server = WebsocketClientPolicy(address)
policy = ActionChunkBroker(server, horizon)
print("metadata:", server.get_server_metadata())
for episode in range(3):
    policy.reset()
    memory, good = str(episode).encode(), True
    for step in range(STEPS):
        image, state = frame(100 * episode + step)
        first = {"episode_start": step == 0, "episode_seed": episode}
        answer = policy.infer({"observation/image": image, "observation/state": state, "prompt": "touch it", **first})
        if step % horizon == 0:
            parts = (memory, image[None].tobytes(), state.tobytes(), b"touch it", str(step).encode())
            memory = hashlib.blake2b(b"|".join(parts), digest_size=16).digest()
        good &= bool(np.array_equal(answer["actions"], chunk_of(memory)[step % horizon]))
    print(f"episode {episode}: {'OK' if good else 'DIFFERENT'}")
