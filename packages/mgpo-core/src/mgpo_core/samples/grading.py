"""Reading the boxed answer and judging it: right or wrong, nothing between (the paper's binary reward)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mgpo_core.boxes.boxed_answer import extract_boxed
from mgpo_core.samples.answer_text import normalise as normalise
from mgpo_core.samples.answer_text import same

_PREFIX = re.compile(
    r"(?:"
    r"(?:so|thus|therefore|hence|clearly|finally|overall|in\sconclusion)\b(?:[,:]\s?|\s)"
    r"|(?:i\s(?:think|believe|guess|would\ssay)|i'd\ssay|i'?\s?a?m\s(?:sure|confident))\s(?:that\s)?"
    r"|(?:(?:the|my)\s)?(?:(?:final|correct|best|right)\s)?(?:answers?|options?|choices?|letter|ans)\b"
    r"\s?(?:is\b|(?:must|should|would)\sbe\b|=)?\s?:?\s?"
    r"|the\s(?=[(\[]?[a-z](?:\W|$))|(?:it's|it\s(?:is|must\sbe|should\sbe|would\sbe)|i\s(?:choose|pick|select)|choose|pick|select)\s"
    r"|(?:因此|所以|故|综上(?:所述)?|由[图此上]可知|可知|可见|因而|那么|[本该此]题|这道?题|我们?|认为|觉得|应[该当]?|最终|最佳|正确|的|[,:\s])*+"
    r"(?:[(\[]?(?:答案|选项|选择|选|答)[)\]]?应?[该当]?(?:是|为|选择|选)?|(?<=.)是)\s?:?\s?"
    r")(?=\S)"
)
"""What says no more than that an answer follows; several may follow one another."""
_SAYS_SO = re.compile(r"(?:is|be|[=:是为\])])\s?$")
_IS_RIGHT = re.compile(
    r"(?<=[a-z)\]])(?:\s?选?项)?(?:\s?[是为]?(?:最?(?:正确|对|合适|佳)的?(?:答案|选项|选择)?|答案)"
    r"|\s(?:is|must\sbe|should\sbe|would\sbe)\s(?:(?:the|my)\s)?"
    r"(?:(?:final|correct|best|right|true)(?:\s(?:answer|option|choice|one))?|answer|choice)"
    r"|(?<=项))$"
)
_ITEM = re.compile(r"^([(\[]?[a-z][)\]]?)\s?(?:选项|项(?=[是为正对,.:\s]))(?=.)")
_LETTER = re.compile(r"[(\[]?\s?([a-z])\s?\.?[)\]]?\s?[.:)]?")
_LETTER_AND_REST = re.compile(
    r"(?:[(\[]\s?([a-z])\s?[)\]]\s?[.:]?|([a-z])\s?(?:\.\)|[.:)]|-(?=\s)))\s?(?=\S)(.*)", re.DOTALL
)
_LETTER_LOOSE_REST = re.compile(r"[^\w\s]*+([a-z])(?![^\W_])[\W_]++(?=\S)(.*)", re.DOTALL)
_LETTER_COMMA_REST = re.compile(r"[(\[]?([a-z])[)\]]?\s?[,;]\s?(?=\S)(.*)", re.DOTALL)
_LETTER_SIGN_REST = re.compile(r"[(\[]?([a-z])[)\]]?\s?(?:[,;|=]\s?(?=\S)|(?=[(\[]))(.*)", re.DOTALL)
_LETTER_IS_REST = re.compile(r"[(\[]?([a-z])[)\]]?(?:\sis\s|\s?[是为]\s?|(?=[^\W_a-z\d]))(.*)", re.DOTALL)
_REST_IN_BRACKETS = re.compile(r"[(\[]\s?(?:option|choice|answer|选项|选)?\s?([a-z])\s?(?:选?项)?[)\]]$")
_REST_SIGN_LETTER = re.compile(r"\s?[,;:=|-]\s?(?:(?:option|choice|answer)\s|选项?)?[(\[]?([a-z])[)\]]?$")
_LETTERS = re.compile(r"(?:\W|_|\b(?:[a-z]|and|or|both|und|nor|not)\b|[和或与及跟])*+")
_PARTS = re.compile(r"\s?[,;/&]\s?|\s(?:and|or)\s|[和或]|\s(?=[(\[][a-z][)\]])|\s(?=[a-z][.:)]\s)")
_SAID_OF_IT = re.compile(r"(?:\s(?:is|are|was|were|says|reads)\s|'s\s|是)([^,;.是]*+)")
_OTHER_LETTER = re.compile(r"(?:^|[\s,;/&])(?:[(\[][a-z][)\]]|[a-z][.:)](?:\s|$))")
_ANY_LETTER = re.compile(r"(?<![a-z0-9'])(?![ai]\s[a-z]{2})([a-z])(?![a-z0-9'-])")  # the article aside
_DENIED = re.compile(
    r"(?:(?:which|that|it)\s)?(?:is\s)?(?:not\s(?:correct|right|true|the)|wrong|incorrect|false)|不[对是选正]|错|排除"
)
_BREAK = re.compile(r"(?<![A-Za-z\\])([A-Za-z][)}\].]*+)[ \t]*+(?:\n\s*+|\\(?:[ ;:\\]|q?quad(?![A-Za-z]))\s*+)++(?=\S)")
"""A letter, and behind it a new line or a space of LaTeX's own."""
_MOST_PREFIXES = 6


def choice_letter(index: int) -> str:
    """The letter of the `index`-th choice (0-based): "A".."Z"; raises ValueError beyond."""
    if not 0 <= index < 26:
        raise ValueError(f"there is no letter for choice {index}: choices are lettered A to Z")
    return chr(ord("A") + index)


def grade(text: str, answer: str, choices: Sequence[str] = ()) -> bool:
    r"""Whether the last \boxed{} of a whole response is right; False when there is none."""
    prediction = extract_boxed(text)
    return prediction is not None and grade_answer(prediction, answer, choices)


def grade_answer(prediction: str, answer: str, choices: Sequence[str] = ()) -> bool:
    """Whether `prediction` (what stood in the box) means `answer`.

    With `choices`, both are resolved to a choice (`resolve_choice`). Without, an answer that is one capital letter is
    the letter of a choice (the choices are in the question then), known in its usual disguises. Else they are
    compared as numbers if both are (1,000 = 1000 = 1000.0; a percent or degree sign may be left out or added, so
    50% = 50, but 50% is not 0.5), else as short texts without regard to case, spacing, LaTeX, quotes, a leading
    article, "the answer is", and closing punctuation.
    """
    if choices:
        right = resolve_choice(answer, choices)
        return right is not None and resolve_choice(prediction, choices) == right
    letter = lone_letter(answer)
    if letter is not None and answer.strip(" ()[].:（）。").isupper():
        return _letter_of(prediction) == letter
    said, expected = normalise(prediction), normalise(answer)
    if same(said, expected):
        return True
    for _ in range(_MOST_PREFIXES):
        prefix = _PREFIX.match(said)
        if prefix is None:
            return False
        said = said[prefix.end() :]
        if _SAYS_SO.search(prefix.group()) and same(normalise(said), expected):
            return True
    return False


def resolve_choice(text: str, choices: Sequence[str]) -> int | None:
    r"""The index of the choice that `text` names by letter, by its text or by both; None if none, or not just one.

    Letters come disguised: `C`, `c`, `(C)`, `C.`, `\text{C}`, `Option C`, `答案：C`, `C. red`, `C, red`, `red (C)`. A
    lone letter is read as the letter of a choice first and as a choice's text only if no choice has that letter
    (prompts ask for the letter).
    """
    texts = [normalise(choice) for choice in choices]
    for form in _forms(text):
        named = _by_letter_or_text(form, texts)
        if named is None:
            named = _by_letter_and_text(form, texts)
        if named:
            return named[0] if len(named) == 1 else None
    return None


def lone_letter(text: str) -> str | None:
    r"""The letter "A".."Z" that is all of `text`, in whatever disguise (`\text{(C)}`, `c.`); None for anything else."""
    found = _LETTER.fullmatch(normalise(text, article=False))
    return None if found is None else found[1].upper()


def _forms(text: str) -> list[str]:
    """`text` normalised, then without "the answer is" before and "is correct" behind, as often as they stand there."""
    form = normalise(text, article=False)
    forms = [form]
    for _ in range(_MOST_PREFIXES):
        prefix = _PREFIX.match(form)
        form = _ITEM.sub(r"\1", form if prefix is None else form[prefix.end() :])
        form = _IS_RIGHT.sub("", form).strip()
        if form == forms[-1]:
            break
        forms.append(form)
    return forms


def _letter_of(text: str) -> str | None:
    """The letter that `text` names where the choices are not known: alone, or before or behind what it stands for."""
    for form in _forms(_BREAK.sub(r"\1: ", text, count=1)):
        found = _LETTER.fullmatch(form)
        if found is not None:
            return found[1].upper()
        found = _LETTER_AND_REST.fullmatch(form)
        if found is not None:
            further = _lists_letters(found[3]) or _OTHER_LETTER.search(found[3]) or _DENIED.match(found[3])
            return None if further else (found[1] or found[2]).upper()
        found = _LETTER_SIGN_REST.fullmatch(form)
        if found is not None and not _ANY_LETTER.search(found[2]) and not _DENIED.match(found[2]):
            return found[1].upper()
        found = _REST_IN_BRACKETS.search(form)
        rest = form[: found.start()] if found is not None else ""
        if found is not None and (rest[-1:] == " " or not rest.isascii()) and not _ANY_LETTER.search(rest):
            return found[1].upper()
    return None


def _by_letter_or_text(form: str, texts: Sequence[str]) -> list[int] | None:
    """The choices that a normalised text names by a lone letter, or else by their text; None if none."""
    letter = _LETTER.fullmatch(form)
    if letter is not None and _index(letter[1]) < len(texts):
        return [_index(letter[1])]
    plain = normalise(form)
    return [index for index, choice in enumerate(texts) if same(plain, choice)] or None


def _by_letter_and_text(form: str, texts: Sequence[str]) -> list[int] | None:
    """The choice named by letter and text, as in `c. red`; None if there is none or the two disagree."""
    both = _LETTER_AND_REST.fullmatch(form) or _LETTER_COMMA_REST.fullmatch(form)
    if both is not None:
        comma = both.re is _LETTER_COMMA_REST
        index, rest = _index(both[1] or both[2]), both[2 if comma else 3]
        fits = _explains(rest, index, texts, comma=comma)
        return [index] if fits and index < len(texts) else None
    behind = _REST_IN_BRACKETS.search(form) or _REST_SIGN_LETTER.search(form)
    if behind is not None:
        index, rest = _index(behind[1]), form[: behind.start()].strip(" ,;:=|-")
        return [index] if index in (_by_letter_or_text(rest, texts) or ()) else None
    for pattern in (_LETTER_LOOSE_REST, _LETTER_IS_REST):
        loose = pattern.fullmatch(form)
        if loose is not None and _index(loose[1]) in _named(loose[2].strip(" ()[]"), texts):
            return [_index(loose[1])]
    return None


def _named(rest: str, texts: Sequence[str]) -> Sequence[int]:
    return _by_letter_or_text(rest, texts) or _by_letter_or_text(rest.removesuffix("的"), texts) or ()


def _explains(rest: str, index: int, texts: Sequence[str], *, comma: bool) -> bool:
    """Whether words behind a letter name its choice, or explain it.

    They must not name another choice, go on listing letters or deny it; behind a mere comma, no other letter may follow
    and the text of no other choice begin.
    """
    named = _by_letter_or_text(rest, texts)
    if named is not None:
        return index in named
    if _lists_letters(rest) or _DENIED.match(rest) or _names_another(rest, index, texts):
        return False
    if not comma:
        return True
    letters = {_index(found[1]) for found in _ANY_LETTER.finditer(rest)} - {index}
    plain = normalise(rest)
    begins = {
        place
        for place, text in enumerate(texts)
        if text and plain.startswith(text) and not plain[len(text) : len(text) + 1].isalnum()
    }
    return not any(letter < len(texts) for letter in letters) and begins <= {index}


def _lists_letters(rest: str) -> bool:
    """Whether words behind a letter go on listing letters: `B) C)`, `B and C`, `(C)`."""
    return _LETTER_AND_REST.fullmatch(rest) is not None or _LETTERS.fullmatch(rest) is not None


def _names_another(rest: str, index: int, texts: Sequence[str]) -> bool:
    """Whether words behind a letter, the text of its choice aside, name another choice: `green, C. blue`."""
    own = texts[index] if index < len(texts) else ""
    if own and rest.startswith(own) and not rest[len(own) : len(own) + 1].isalnum():
        rest = rest[len(own) :]
    for part in _PARTS.split(rest, maxsplit=40)[:40]:
        form = part.strip(" ()[].:")
        both = _LETTER_AND_REST.fullmatch(part.strip())
        named = _by_letter_or_text(form, texts) if form else None
        if named is None and both is not None and _by_letter_or_text(both[3], texts):
            named = [_index(both[1] or both[2])]
        if named is not None and index not in named:
            return True
    said = [_named(normalise(found[1]), texts) for found, _ in zip(_SAID_OF_IT.finditer(rest), range(40), strict=False)]
    return any(named and index not in named for named in said)


def _index(letter: str) -> int:
    return ord(letter) - ord("a")
