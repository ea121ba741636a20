"""Text for LaTeX: escapes, and the width that a text takes."""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from pathlib import Path

from matplotlib import get_data_path
from matplotlib.ft2font import FT2Font, LoadFlags

POINTS = 8  # \footnotesize in a document of 10 points; every width is a width at this size
WIDER = 1.07  # Computer Modern of 8 points is wider than the scaled 10 point design
PIECES = re.compile(r"[^_(,/-]+[_(,/-]*|[_(,/-]+")  # of a word that is wider than a line
SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "[": "{[}",  # after \\ a bracket would begin an argument
    "^": r"\textasciicircum{}",
    "<": r"$<$",
    ">": r"$>$",
    "|": r"$|$",
    '"': "''",
    "–": "--",
    "—": "---",
    "−": "$-$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "→": r"$\to$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "∞": r"$\infty$",
    "…": r"\dots{}",
    "†": r"$\dagger$",
    "↳": r"\quad ",
    "°": r"$^\circ$",
    "’": "'",
    "`": "`",
    "\u00a0": "~",
} | {letter: f"\\{letter}" for letter in "&%$#_{}"}
GREEK = {
    "α": "alpha",
    "β": "beta",
    "γ": "gamma",
    "δ": "delta",
    "ε": "varepsilon",
    "ζ": "zeta",
    "η": "eta",
    "θ": "theta",
    "κ": "kappa",
    "λ": "lambda",
    "μ": "mu",
    "µ": "mu",
    "ν": "nu",
    "ξ": "xi",
    "π": "pi",
    "ρ": "rho",
    "σ": "sigma",
    "τ": "tau",
    "φ": "varphi",
    "χ": "chi",
    "ψ": "psi",
    "ω": "omega",
    "Γ": "Gamma",
    "Δ": "Delta",
    "Θ": "Theta",
    "Λ": "Lambda",
    "Σ": "Sigma",
    "Φ": "Phi",
    "Ω": "Omega",
}


def escape(text: object) -> str:
    """The text for LaTeX. A letter that Computer Modern lacks becomes its plain form, or its code in brackets."""
    return "".join(map(_escaped, str(text)))


@cache
def _escaped(letter: str) -> str:
    if letter in SPECIAL:
        return SPECIAL[letter]
    if letter in GREEK:
        return f"$\\{GREEK[letter]}$"
    plain = _plain(letter)
    return plain if plain == letter or plain == " " else "".join(map(_escaped, plain))


def _plain(letter: str) -> str:
    """A letter beyond `SPECIAL` and `GREEK` in ASCII."""
    if letter.isascii():
        return letter if letter.isprintable() else " "
    plain = unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode()
    return plain or f"[U+{ord(letter):04X}]"


@cache
def _font() -> FT2Font:
    font = FT2Font(str(Path(get_data_path(), "fonts", "ttf", "cmr10.ttf")))
    font.set_size(POINTS * WIDER, 72)
    return font


@cache
def _letter_width(letter: str) -> float:
    if letter not in SPECIAL and letter not in GREEK and not letter.isascii():
        return text_width(_plain(letter))
    font = _font()
    if not font.get_char_index(ord(letter)):
        return POINTS * 0.9  # of a symbol, which another font has
    return font.load_char(ord(letter), flags=LoadFlags.NO_HINTING).linearHoriAdvance / 65536


def text_width(text: str) -> float:
    """Width of a text in points, before escaping."""
    return sum(map(_letter_width, text))


def wrap(text: str, width: float) -> list[str]:
    """The text in lines of at most this width, broken at spaces, and inside a word that is wider.

    A wide word breaks after its marks where the pieces fit, else between letters.
    """
    lines = [""]
    for word in text.split():
        if text_width(f"{lines[-1]} {word}".strip()) <= width:
            lines[-1] = f"{lines[-1]} {word}".strip()
            continue
        lines += [""] if lines[-1] else []
        for piece in PIECES.findall(word):
            for part in [piece] if text_width(piece) <= width else piece:
                if text_width(lines[-1] + part) > width and lines[-1]:
                    lines.append("")
                lines[-1] += part
    return lines
