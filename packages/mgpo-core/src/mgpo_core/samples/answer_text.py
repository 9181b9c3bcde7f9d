"""Short answers in one plain form: without LaTeX, case, full-width letters, quotes and closing punctuation."""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction

__all__ = ["normalise", "same"]

_COMMAND = re.compile(r"\\([a-z]+|.?)", re.DOTALL)
_COLOUR = re.compile(r"\\(?:textcolor|colorbox|color)\s*+\{[^{}]*+\}")
_DOUBLE_BRACES = re.compile(r"\{\s*+\{([^{}]*+)\}\s*+\}")
_FRACTION = re.compile(r"(?:(\d)\s?)?\\frac\s*+(?:\{([^{}]*+)\}|(\d))\s*+(?:\{([^{}]*+)\}|(\d))(\d)?")
_GROUP = re.compile(r"(\^|_|\\sqrt)\s*+\{([^{}]*+)\}(\d)?")
_SIMPLE = re.compile(r"-?[\w.,^]*+[%°]?")  # what needs no brackets where the braces round it go
# commands by what they become; any other is written out by its name, without the backslash
_MARKUP_COMMANDS = frozenset((
    "text", "textbf", "textit", "textrm", "textsf", "texttt", "textsc", "textnormal", "textup", "emph", "mathrm",
    "mathbf", "mathit", "mathsf", "mathtt", "mathcal", "mathbb", "boldsymbol", "bm", "pmb", "mbox", "hbox", "fbox",
    "operatorname", "boxed", "underline", "uline", "ensuremath", "left", "right", "big", "bigg", "bigl", "bigr",
    "displaystyle", "textstyle", "limits", "bf", "rm", "it", "sf", "tt", "bfseries", "itshape", "rmfamily", "tiny",
    "small", "normalsize", "large", "huge", "(", ")", "[", "]", "!", "{", "}"
))  # fmt: skip
_SIGNS = {
    "circ": "°", "degree": "°", "times": "×", "cdot": "·", "div": "÷", "pm": "±", "leq": "≤", "le": "≤", "geq": "≥",
    "ge": "≥", "neq": "≠", "ne": "≠", "infty": "∞", "approx": "≈", "rightarrow": "→", "to": "→", "leftarrow": "←",
    "sqrt": "\\sqrt", "frac": "\\frac", "dfrac": "\\frac", "tfrac": "\\frac", "cfrac": "\\frac", "sfrac": "\\frac",
    "$": "us$", "%": "%", "#": "#", "&": "&", "_": "_",
    ",": " ", ";": " ", ":": " ", " ": " ", "\\": " ", "quad": " ", "qquad": " ", "newline": " ",
}  # fmt: skip
_CHARACTERS = str.maketrans(
    {"∘": "°", "√": "sqrt", "′": "'", "π": "pi", "θ": "theta", "α": "alpha", "β": "beta",
     "。": ".", "、": ",", "【": "[", "】": "]", "\u2212": "-", "‐": "-", "‑": "-", "–": "-", "—": "-", "\u2044": "/",
     "~": " ",
     # traditional forms of the characters in "the answer is" and the like
     "為": "为", "選": "选", "擇": "择", "項": "项", "應": "应", "當": "当", "該": "该", "題": "题", "綜": "综",
     "對": "对", "錯": "错", "誤": "误", "確": "确", "認": "认", "覺": "觉", "這": "这", "結": "结", "論": "论",
     "終": "终", "給": "给", "說": "说", "見": "见", "個": "个"}
    | dict.fromkeys("“”„「」『』《》〈〉", '"') | dict.fromkeys("‘’‚", "'")
)  # fmt: skip
_AFTER_DIGIT = re.compile(r"(?<=\d)(?=[¼-¾⅐-⅞])")  # 1½ is 1 1/2
_RAISED = re.compile(r"(?<=\S)[⁰¹²³⁴-⁹]+")  # 10² is 10^2
_THIN_SPACE = re.compile(r"(?<=\d)\\[,!]\s?(?=\d{3})")
_DEGREE_SIGN = re.compile(r"(?<=\d)\s?[º˚]|(?<=[\^{])[º˚]")  # which NFKC turns into an o, or a ring over a space
_DEGREES = re.compile(r"\^\s?°|(?<=\d)\s?\^\s?o(?=[cf]?\b)")
# zero-width characters, direction and byte order marks, soft hyphens and variation selectors
_TAGS = re.compile(r"</?answer>|<\|[a-z0-9_]{1,40}\|>|</s>")
_INVISIBLE = re.compile("[\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufe00-\ufe0f\ufeff]+")

_INCHES = re.compile(r"(?<=\d)''(?!')")
_MONEY = re.compile(r"\A[*_` ]*+(?:(?:us)?\$ ?([\d.][\d.,]*+)|([\d.][\d.,]*+) ?(?:us)?\$(?=[*_` .,;:!?]*+\Z))")
_ARTICLE = r"(?:a|an|the)\s++(?=\S)"
_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d*)?(?:e[-+]?\d{1,3})?")
_POWER = re.compile(r"(?:(.+?)\s?[×·*x]\s?)?10\s?\^\s?([-+]?\d{1,3})")
_MIXED = re.compile(r"([-+]?\d+)\s(\d+)\s?/\s?(\d+)")
_MARKUP = " $*_`\"'"
_MARKUP_START = re.compile(r"\A[ $*_`\"']*+")
_START = re.compile(rf"\A(?:[ $*_`\"']++|{_ARTICLE})*+")
_LOOSE_SPACE = re.compile(
    r"(?<=[^\w\s.'\"]) (?!\d{3}(?!\d))|(?<=[^\w\s.,'\"]) | (?=[^\w\s.'\"])|(?<=\d) (?=[^\W\d_])|(?<=\d') "
)
"""A space without meaning: beside a sign, and between a number and its unit; not in `1, 000`."""
_MAX_NUMBER = 60  # characters; a longer one is compared as text


def normalise(text: str, *, article: bool = True) -> str:
    """`text` in lower case without LaTeX, Markdown's marks, invisible characters, extra spaces, quotes, closing
    punctuation and leading article; what is nothing else stays.

    Idempotent, and linear in the length of the text.
    """
    text = _plain_characters(text)
    if "\\" in text or "{" in text or "}" in text:
        text = _without_latex(text)
    text = _TAGS.sub(" ", text) if "<" in text else text
    text = " ".join(_DEGREES.sub("°", _INCHES.sub('"', text)).split()).replace("us$ ", "us$")
    if text.count("$") == 1:  # a dollar, not the mark of a formula
        text = _MONEY.sub(lambda found: f"us${found[1] or found[2]}", text)
    end = len(text.rstrip(_MARKUP + ".,;:!?"))
    if text[end : end + 1] in ("'", '"') and text[:end][-1:].isdigit() and text.count(text[end]) == 1:
        end += 1  # feet or inches
    plain = (_START if article else _MARKUP_START).sub("", text[:end]) or text  # "*" is an answer too
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
        plain = _GROUP.sub(_group, _FRACTION.sub(_fraction, _DOUBLE_BRACES.sub(r"{\1}", text)))
        if plain == text:
            break
        text = plain
    return text.replace("\\frac", "").replace("\\sqrt", "sqrt").replace("{", "").replace("}", "")


def _fraction(found: re.Match[str]) -> str:
    whole, *parts, behind = found.groups()
    above, below = parts[0] or parts[1] or "", parts[2] or parts[3] or ""
    return f"{whole + ' ' if whole else ''}{_bracketed(above)}/{_bracketed(below)}{' ' + behind if behind else ''}"


def _group(found: re.Match[str]) -> str:
    return f"{found[1]}{_bracketed(found[2])}{' ' + found[3] if found[3] else ''}"


def _bracketed(part: str) -> str:
    return part if _SIMPLE.fullmatch(part.strip()) else f"({part})"


def same(a: str, b: str) -> bool:
    """Whether two normalised texts are the same but for spaces that mean nothing, or the same number.

    1,000 = 1000.0, 1/2 = .5, 3×10^3 = 3000, 50% = 50, 90° = 90.
    """
    if not a or not b:
        return False
    if a == b:
        return True
    if a.replace(" ", "") == b.replace(" ", "") and _LOOSE_SPACE.sub("", a) == _LOOSE_SPACE.sub("", b):
        return True
    left, right = _value(a), _value(b)
    return (
        left is not None and right is not None and left[0] == right[0] and (left[1] in right[1] or right[1] in left[1])
    )


def _value(text: str) -> tuple[Fraction, str] | None:
    """(exact value, its sign: "%", "°", "'", '"', "us$" or "") of a number or a fraction of two; else None."""
    if len(text) > _MAX_NUMBER:
        return None
    sign = "us$" if text.startswith("us$") else text[-1:] if text[-1:] in ("%", "°", "'", '"') else ""
    text = text.removeprefix("us$").strip() if sign == "us$" else text.removesuffix(sign).strip()
    power = _POWER.fullmatch(text)
    times = _number(power[1] or "1") if power else _number(text)
    return None if times is None else (times * Fraction(10) ** int(power[2]) if power else times, sign)


def _number(text: str) -> Fraction | None:
    mixed = _MIXED.fullmatch(text)
    whole, text = (mixed[1], f"{mixed[2]}/{mixed[3]}") if mixed else ("0", text)
    parts = [part.strip() for part in text.split("/")]
    if len(parts) > 2 or not all(_NUMBER.fullmatch(part) and re.search(r"\d", part) for part in parts):
        return None
    try:
        values = [Fraction(part.replace(",", "").removesuffix(".")) for part in parts]
        value = values[0] / values[1] if len(values) == 2 else values[0]
        return Fraction(whole) + (-value if whole.startswith("-") else value)
    except (ValueError, ZeroDivisionError):
        return None
