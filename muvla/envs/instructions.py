"""Instruction of each task family (MIKASA's as in the suite, μVLA spec 1.4)."""

from __future__ import annotations

INSTRUCTIONS = {
    "RecallPosition": "Touch the marked disc.",
    "RecallColor": "Touch the disc of the same color.",
    "RememberColor": "Observe the cube's color, wait, then touch the cube of the same color.",
    "RememberShapeAndColor": (
        "Observe the object's shape and color, wait, then touch the object of the same shape and color."
    ),
    "ShellGamePush": "Observe which cup hides the ball, wait, then push that cup forward.",
    "InterceptMedium": "Intercept the rolling ball by moving to its path and deflecting it toward the target.",
    "TakeItBack": (
        "Push the cube onto the red target, and when the target changes color, return the cube to its original "
        "position."
    ),
}
