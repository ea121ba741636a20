"""The instruction of each task family, in the words of the suite (μVLA spec 1.4)."""

from __future__ import annotations

INSTRUCTIONS = {
    "RememberColor": "Observe the cube's color, wait, then touch the cube of the same color.",
    "RememberShape": "Observe the object's shape, wait, then touch the object of the same shape.",
    "RememberShapeAndColor": (
        "Observe the object's shape and color, wait, then touch the object of the same shape and color."
    ),
    "ShellGameTouch": "Observe which cup hides the ball, wait, then touch that cup.",
    "ShellGamePick": "Observe which cup hides the ball, wait, then pick up that cup and lift it.",
    "ShellGamePush": "Observe which cup hides the ball, wait, then push that cup forward.",
    "Intercept": "Intercept the rolling ball by moving to its path and deflecting it toward the target.",
    "InterceptGrab": "Intercept the rolling ball and grasp it to stop it.",
    "TakeItBack": (
        "Push the cube onto the red target, and when the target changes color, return the cube to its original "
        "position."
    ),
    "BunchOfColors": (
        "Observe which colored cubes appear during the cue, wait, then touch all of them in any order and press the "
        "center button."
    ),
    # "In any order", although the suite's success counts the order (`muvla.envs.mikasa.families`).
    "SeqOfColors": (
        "Observe which colored cubes appear during the cue, wait, then touch all of them in any order and press the "
        "center button."
    ),
    "ChainOfColors": (
        "Observe which colored cubes appear during the cue, wait, then touch all of them in the same order as the "
        "cubes were shown and press the center button."
    ),
    "ShellGameShuffleTouch": (
        "Observe which cup hides the ball, track the cups as they shuffle, then touch the correct cup."
    ),
    "ShellGameShuffleColorLampTouch": (
        "Observe which color is under each cup, track the cups as they shuffle, then touch the cup matching the lamp "
        "color."
    ),
    "BlinkCountButtonPress": (
        "Count how many times the blue lamp blinks, press the red button exactly that many times when the red lamp "
        "turns green, then press the black button to submit your answer."
    ),
    # {steps} is a number of the task.
    "TimedTransfer": (
        "When the white lamp turns green, start counting steps from that exact moment. Move the blue cube from the "
        "green disc to the red disc exactly on step {steps} of that count."
    ),
    # Every episode names its angle in the place of 45; `MikasaTask.instructions` lists all sentences.
    "RotateLenient": "Rotate the peg by 45 degrees to match the target angle.",
    "RotateStrict": (
        "Rotate the peg by 45 degrees to match the target angle while keeping the center of the peg in place."
    ),
}
