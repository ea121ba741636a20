"""Colours by name, for the palettes of tasks."""

from __future__ import annotations

from muvla.errors import MuvlaError, unknown_name

Colour = tuple[int, int, int]

# RGB. The first nine are MIKASA-Robo's RememberColor cubes in the suite's order; the suite calls an orange `olive`
# (μVLA spec 6.1). The others are the colours of the published palette probe. Their RGB are not published, so they are
# the usual values of these names (spec 7).
COLOURS: dict[str, Colour] = {
    "red": (255, 0, 0),
    "lime": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "magenta": (255, 0, 255),
    "cyan": (0, 255, 255),
    "maroon": (128, 0, 0),
    "olive": (255, 128, 0),
    "teal": (0, 128, 128),
    "pink": (255, 192, 203),
    "orange": (255, 165, 0),
    "purple": (128, 0, 128),
    "brown": (139, 69, 19),
    "white": (255, 255, 255),
}


def get_colour(name: str) -> Colour:
    """RGB, 0 to 255. Raises MuvlaError for an unknown name."""
    if name not in COLOURS:
        raise unknown_name("task.palette", name, COLOURS)
    return COLOURS[name]


def check_palette(task: str, colours: tuple[str, ...], palette: tuple[str, ...]) -> None:
    """Raises MuvlaError unless `palette` has a different colour for each of the task's `colours`."""
    needed = len(colours)
    if len(palette) != needed or len(set(palette)) != needed:
        raise MuvlaError(
            "task.palette",
            got=palette,
            expected=f"{needed} different colours for {task}",
            remedy=f"name {needed} colours, each once",
        )
