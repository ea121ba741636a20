"""LeRobotDataset v2.0, v2.1 and v3: numbers in parquet, pictures in parquet (PNG, JPEG) or in videos.

Every version has `meta/info.json`: features, frames per second, patterns of the paths of files.

    v2.0, v2.1: a file per episode                         v3: many episodes to a file
    meta/tasks.jsonl                                       meta/tasks.parquet
    meta/episodes.jsonl                                    meta/episodes/chunk-000/file-000.parquet
    data/chunk-000/episode_000000.parquet                  data/chunk-000/file-000.parquet
    videos/chunk-000/<feature>/episode_000000.mp4          videos/<feature>/chunk-000/file-000.mp4

Tasks hold the instructions by `task_index`, episodes the lengths, data a row per frame. v3 also says, in the row of an
episode, in which file of data and in which seconds of which video the episode lies.
"""

from muvla.data.readers.lerobot.directory import LeRobotDirectory
from muvla.data.readers.lerobot.episodes import ABOUT
from muvla.data.readers.lerobot.tasks import INSTRUCTION

__all__ = ["ABOUT", "INSTRUCTION", "LeRobotDirectory"]
