"""Reading the boxed answer and judging it: right or wrong, nothing between (the paper's binary reward)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from fractions import Fraction

_BRACES = re.compile(r"\\boxed\s*+\{|\\[{}]|[{}]")
_WRAPPER = re.compile(
    r"\\(?:text|textbf|textit|textrm|textsf|texttt|emph|mathrm|mathbf|mathit|mathsf|mathtt|boldsymbol|bm|mbox|fbox"
    r"|operatorname|boxed)\s*+\{([^{}]*+)\}"
)
_SPACING = re.compile(r"\\(?:[,;:! ]|quad\b|qquad\b)|~")
_SIZING = re.compile(r"\\(?:left|right|displaystyle)(?![A-Za-z])")
_FRACTION = re.compile(r"\\[dt]?frac\s*+\{([^{}]*+)\}\s*+\{([^{}]*+)\}")
_PREFIX = re.compile(r"(?:the\s+)?(?:(?:final|correct|best)\s+)?(?:answer|option|choice)\b\s*(?:is\b)?\s*:?\s*(?=\S)")
_LETTER = re.compile(r"[(\[]?\s*([a-z])\s*[)\]]?\s*[.:)]?")
_LETTER_AND_REST = re.compile(
    r"(?:[(\[]\s*([a-z])\s*[)\]]\s*[.:]?|([a-z])\s*(?:[.:)]|-(?=\s)))\s*(?=\S)(.*)", re.DOTALL
)
_LETTER_SPACE_REST = re.compile(r"([a-z])\s(.*)", re.DOTALL)
_ARTICLE = re.compile(r"(?:a|an|the)\s+(?=\S)")
_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d*)?(?:e[-+]?\d{1,3})?")
_MARKUP = " $*`\"'{}"
_MAX_NUMBER = 60  # characters; a longer one is compared as text


def extract_boxed(text: str) -> str | None:
    r"""The content of the last complete \boxed{...} of `text` (braces may nest), None without one."""
    open_braces: list[tuple[int, int] | None] = []  # (where \boxed starts, where its content starts)
    best: tuple[int, int, int] | None = None
    for mark in _BRACES.finditer(text):
        if mark.group().startswith("\\b"):
            open_braces.append((mark.start(), mark.end()))
        elif mark.group() == "{":
            open_braces.append(None)
        elif mark.group() == "}" and open_braces:
            box = open_braces.pop()
            if box is not None and (best is None or box[0] > best[0]):
                best = (*box, mark.start())
    return None if best is None else text[best[1] : best[2]].strip()


def choice_letter(index: int) -> str:
    """The letter of the `index`-th choice (0-based): "A".."Z"; raises ValueError beyond."""
    if not 0 <= index < 26:
        raise ValueError(f"There is no letter for choice {index}: choices are lettered A to Z.")
    return chr(ord("A") + index)


def grade(text: str, answer: str, choices: Sequence[str] = ()) -> bool:
    r"""Whether the last \boxed{} of a whole response is right; False when there is none."""
    prediction = extract_boxed(text)
    return prediction is not None and grade_answer(prediction, answer, choices)


def grade_answer(prediction: str, answer: str, choices: Sequence[str] = ()) -> bool:
    """Whether `prediction` (what stood in the box) means `answer`.

    With `choices`, both are resolved to a choice (`resolve_choice`). Without, they are compared as numbers if both
    are (1,000 = 1000 = 1000.0; a percent sign may be left out or added, so 50% = 50, but 50% is not 0.5), else as
    short texts without regard to case, spacing, LaTeX wrappers, a leading article and closing punctuation.
    """
    if choices:
        truth = resolve_choice(answer, choices)
        return truth is not None and resolve_choice(prediction, choices) == truth
    return _same(normalise(prediction), normalise(answer))


def resolve_choice(text: str, choices: Sequence[str]) -> int | None:
    r"""The index of the choice that `text` names by letter, by its text or by both; None if none, or not just one.

    Letters come disguised: `C`, `c`, `(C)`, `C.`, `\text{C}`, `Option C`, `C. red`. A lone letter is read as the
    letter of a choice first and as a choice's text only if no choice has that letter (prompts ask for the letter).
    """
    plain = normalise(text, article=False)
    for form in dict.fromkeys((plain, _PREFIX.sub("", plain, count=1))):
        named = _by_letter_or_text(form, choices)
        if named is None:
            named = _by_letter_and_text(form, choices)
        if named:
            return named[0] if len(named) == 1 else None
    return None


def _by_letter_or_text(form: str, choices: Sequence[str]) -> list[int] | None:
    """The choices that a normalised text names by a lone letter, or else by their text; None if none."""
    letter = _LETTER.fullmatch(form)
    if letter is not None and _index(letter[1]) < len(choices):
        return [_index(letter[1])]
    plain = normalise(form)
    return [index for index, choice in enumerate(choices) if _same(plain, normalise(choice))] or None


def _by_letter_and_text(form: str, choices: Sequence[str]) -> list[int] | None:
    """The choice named by letter and text, as in `c. red`; None if there is none or the two disagree."""
    both = _LETTER_AND_REST.fullmatch(form)
    if both is not None:
        index, rest = _index(both[1] or both[2]), both[3]
        named = _by_letter_or_text(rest, choices)
        # further words may explain the letter, but must not name another choice or go on listing letters
        fits = index in named if named is not None else _LETTER_AND_REST.fullmatch(rest) is None
        return [index] if fits and index < len(choices) else None
    loose = _LETTER_SPACE_REST.fullmatch(form)
    if loose is not None and _index(loose[1]) in (_by_letter_or_text(loose[2], choices) or ()):
        return [_index(loose[1])]
    return None


def _index(letter: str) -> int:
    return ord(letter) - ord("a")


def normalise(text: str, *, article: bool = True) -> str:
    """`text` in lower case without LaTeX wrappers, extra spaces, quotes, closing punctuation and leading article."""
    text = (
        unicodedata.normalize("NFKC", text)
        .replace("{,}", ",")
        .replace("\\%", "%")
        .replace("\\$", "")
        .replace("\u2212", "-")
    )
    text = _SIZING.sub("", _SPACING.sub(" ", text))
    for _ in range(8):  # wrappers nest; a bound keeps this linear
        unwrapped = _FRACTION.sub(r"\1/\2", _WRAPPER.sub(r"\1", text))
        if unwrapped == text:
            break
        text = unwrapped
    text = " ".join(text.split()).casefold()
    text = text.lstrip(_MARKUP).rstrip(_MARKUP + ".,;:!")
    return _ARTICLE.sub("", text, count=1) if article and _ARTICLE.match(text) else text


def _same(a: str, b: str) -> bool:
    if not a or not b:
        return False
    if a == b:
        return True
    left, right = _value(a), _value(b)
    return left is not None and left == right


def _value(text: str) -> Fraction | None:
    """The exact value of a number or a fraction of two, a percent sign ignored; None for anything else."""
    text = text.removesuffix("%").strip()
    if not text or len(text) > _MAX_NUMBER:
        return None
    parts = [part.strip() for part in text.split("/")]
    if len(parts) > 2 or not all(_NUMBER.fullmatch(part) and re.search(r"\d", part) for part in parts):
        return None
    try:
        values = [Fraction(part.replace(",", "").removesuffix(".")) for part in parts]
        return values[0] / values[1] if len(values) == 2 else values[0]
    except (ValueError, ZeroDivisionError):
        return None
