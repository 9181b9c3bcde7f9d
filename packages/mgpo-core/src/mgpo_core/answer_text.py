"""Short answers in one plain form: without LaTeX, case, full-width letters, quotes and closing punctuation."""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction

__all__ = ["normalise", "same"]

_COMMAND = re.compile(r"\\([a-z]+|.?)", re.DOTALL)
_COLOUR = re.compile(r"\\(?:textcolor|colorbox|color)\s*+\{[^{}]*+\}")
_DOUBLE_BRACES = re.compile(r"\{\s*+\{([^{}]*+)\}\s*+\}")
_FRACTION = re.compile(r"(?:(\d)\s?)?\\frac\s*+(?:\{([^{}]*+)\}|(\d))\s*+(?:\{([^{}]*+)\}|(\d))")
# commands by what they become; any other is written out by its name, without the backslash
_MARKUP_COMMANDS = frozenset((
    "text", "textbf", "textit", "textrm", "textsf", "texttt", "textsc", "textnormal", "textup", "emph", "mathrm",
    "mathbf", "mathit", "mathsf", "mathtt", "mathcal", "mathbb", "boldsymbol", "bm", "pmb", "mbox", "hbox", "fbox",
    "operatorname", "boxed", "underline", "uline", "ensuremath", "left", "right", "big", "bigg", "bigl", "bigr",
    "displaystyle", "textstyle", "limits", "bf", "rm", "it", "sf", "tt", "bfseries", "itshape", "rmfamily", "tiny",
    "small", "normalsize", "large", "huge", "(", ")", "[", "]", "!", "{", "}", "$"
))  # fmt: skip
_SIGNS = {
    "circ": "°", "degree": "°", "times": "×", "cdot": "·", "div": "÷", "pm": "±", "leq": "≤", "le": "≤", "geq": "≥",
    "ge": "≥", "neq": "≠", "ne": "≠", "infty": "∞", "approx": "≈", "rightarrow": "→", "to": "→", "leftarrow": "←",
    "frac": "\\frac", "dfrac": "\\frac", "tfrac": "\\frac", "cfrac": "\\frac", "sfrac": "\\frac",
    "%": "%", "#": "#", "&": "&", "_": "_",
    ",": " ", ";": " ", ":": " ", " ": " ", "\\": " ", "quad": " ", "qquad": " ", "newline": " ",
}  # fmt: skip
_CHARACTERS = str.maketrans(
    {"∘": "°", "π": "pi", "θ": "theta", "α": "alpha", "β": "beta",
     "。": ".", "、": ",", "【": "[", "】": "]", "\u2212": "-", "‐": "-", "‑": "-", "–": "-", "—": "-", "\u2044": "/",
     "~": " "} | dict.fromkeys("“”„「」『』《》〈〉", '"') | dict.fromkeys("‘’‚", "'")
)  # fmt: skip
_AFTER_DIGIT = re.compile(r"(?<=\d)(?=[¼-¾⅐-⅞])")  # 1½ is 1 1/2
_RAISED = re.compile(r"(?<=\S)[⁰¹²³⁴-⁹]+")  # 10² is 10^2
_THIN_SPACE = re.compile(r"(?<=\d)\\[,!]\s?(?=\d{3})")
_DEGREE_SIGN = re.compile(r"(?<=\d)\s?[º˚]|(?<=[\^{])[º˚]")  # which NFKC turns into an o, or a ring over a space
_DEGREES = re.compile(r"\^\s?°|(?<=\d)\s?\^\s?o(?=[cf]?\b)")
# zero-width characters, direction and byte order marks, soft hyphens and variation selectors
_INVISIBLE = re.compile("[\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufe00-\ufe0f\ufeff]+")

_ARTICLE = r"(?:a|an|the)\s++(?=\S)"
_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d*)?(?:e[-+]?\d{1,3})?")
_MIXED = re.compile(r"([-+]?\d+)\s(\d+)\s?/\s?(\d+)")
_MARKUP = " $*_`\"'"
_MARKUP_START = re.compile(r"\A[ $*_`\"']*+")
_START = re.compile(rf"\A(?:[ $*_`\"']++|{_ARTICLE})*+")
_MAX_NUMBER = 60  # characters; a longer one is compared as text


def normalise(text: str, *, article: bool = True) -> str:
    """`text` in lower case without LaTeX, Markdown's marks, invisible characters, extra spaces, quotes, closing
    punctuation and leading article; what is nothing else stays.

    Idempotent, and linear in the length of the text.
    """
    text = _plain_characters(text)
    if "\\" in text or "{" in text or "}" in text:
        text = _without_latex(text)
    text = " ".join(_DEGREES.sub("°", text).split())
    plain = text.rstrip(_MARKUP + ".,;:!?")
    plain = (_START if article else _MARKUP_START).sub("", plain) or text  # "*" is an answer too
    return plain if plain.isascii() else unicodedata.normalize("NFKC", plain)


def _plain_characters(text: str) -> str:
    """`text` in lower case, each character in its plain form: full-width letters, quotes, dashes, ½, ²."""
    if not text.isascii():
        text = _DEGREE_SIGN.sub("°", _INVISIBLE.sub("", text))
        text = _AFTER_DIGIT.sub(" ", text)
        text = _RAISED.sub(lambda found: "^" + found.group(), text)
        text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return text.translate(_CHARACTERS).casefold()


def _without_latex(text: str) -> str:
    """`text` (in lower case) without braces and backslashes, fractions as `1/2`, known signs as characters."""
    text = _COLOUR.sub("", _THIN_SPACE.sub("", text))
    text = _COMMAND.sub(lambda found: _SIGNS.get(found[1], "" if found[1] in _MARKUP_COMMANDS else found[1]), text)
    for _ in range(4):  # fractions nest; a bound keeps this linear
        plain = _FRACTION.sub(_fraction, _DOUBLE_BRACES.sub(r"{\1}", text))
        if plain == text:
            break
        text = plain
    return text.replace("\\frac", "").replace("{", "").replace("}", "")


def _fraction(found: re.Match[str]) -> str:
    whole, *parts = found.groups()
    above, below = parts[0] or parts[1] or "", parts[2] or parts[3] or ""
    return f"{whole + ' ' if whole else ''}{above}/{below}"


def same(a: str, b: str) -> bool:
    """Whether two normalised texts are the same, or the same number: 1,000 = 1000.0, 1/2 = .5, 50% = 50, 90° = 90."""
    if not a or not b:
        return False
    if a == b:
        return True
    left, right = _value(a), _value(b)
    return (
        left is not None and right is not None and left[0] == right[0] and (left[1] in right[1] or right[1] in left[1])
    )


def _value(text: str) -> tuple[Fraction, str] | None:
    """(exact value, sign behind it: "%", "°" or "") of a number or a fraction of two; None for anything else."""
    sign = text[-1:] if text[-1:] in ("%", "°") else ""
    text = text.removesuffix(sign).strip()
    if not text or len(text) > _MAX_NUMBER:
        return None
    mixed = _MIXED.fullmatch(text)
    whole, text = (mixed[1], f"{mixed[2]}/{mixed[3]}") if mixed else ("0", text)
    parts = [part.strip() for part in text.split("/")]
    if len(parts) > 2 or not all(_NUMBER.fullmatch(part) and re.search(r"\d", part) for part in parts):
        return None
    try:
        values = [Fraction(part.replace(",", "").removesuffix(".")) for part in parts]
        value = values[0] / values[1] if len(values) == 2 else values[0]
        return Fraction(whole) + (-value if whole.startswith("-") else value), sign
    except (ValueError, ZeroDivisionError):
        return None
