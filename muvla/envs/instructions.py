"""Instruction of each task family (MIKASA's as in the suite, μVLA spec 1.4)."""

from __future__ import annotations

INSTRUCTIONS = {
    "RecallPosition": "Touch the marked disc.",
    "RecallColor": "Touch the disc of the same color.",
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
    # These name the angle of the episode; an environment's `info` has the sentence with its own.
    "RotateLenient": "Rotate the peg by 45 degrees to match the target angle.",
    "RotateStrict": (
        "Rotate the peg by 45 degrees to match the target angle while keeping the center of the peg in place."
    ),
}
