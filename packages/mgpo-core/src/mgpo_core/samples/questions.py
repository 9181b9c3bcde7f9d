"""Benchmark prompts taken apart: the question, its choices, and the instruction how to answer.

Benchmarks write all three into one text, each in its own way; a template wants them apart, for the paper shows the
choices in the second turn only and asks for the answer in its own words. Training, evaluation and the demo read
choices by these functions. All of them take time linear in the length of the text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

from mgpo_core.samples.answer_instructions import WINDOW, instruction_start
from mgpo_core.samples.grading import choice_letter

__all__ = ["lettered_otherwise", "split_question", "strip_instructions", "without_letters"]

# `(A)`, `A.`, `A)`, `A:`, `A -`, `**A.**`, `Option A:`, and the full-width forms. "A.M." are initials, no letter of a
# choice.
_LETTER = "[A-Za-zＡ-Ｚａ-ｚ]"
_MARK = (
    r"(?:\*\*)?(?:(?i:option|choice|选项)\s?)?"
    rf"(?:[(\[（【]\s?(?P<inner>{_LETTER})\s?(?P<closing>[)\]）】])(?:\*\*)?[.:：、．]?"
    rf"|(?P<bare>{_LETTER})(?:\*\*)?\s?"
    r"(?P<mark>\.?[)）]|[:：、．，]|(?<=\s)[-–—](?=\s)|\.(?![A-Za-z]\b)))(?:\*\*)?"
)
_ALONE = re.compile(_MARK)
_LETTERED = re.compile(rf"{_MARK}\s*(?P<text>\S.*)", re.DOTALL)
_HEADER_WORDS = (
    r"(?i:(?:(?:the|here|are|answer|possible|available|following|given)[ \t]+){0,4}(?:choices|options|candidates)"
    r"(?:[ \t]+(?:are|is|listed|given|below|as|follows?)){0,4}|(?:possible|candidate)[ \t]+answers)"
    r"|(?:以下|下列|下面)?(?:是|为)?(?:备选|可选|候选)?(?:答案)?(?:的)?选项(?:如下|有|是|为)?|(?:备选|可选|候选)(?:答案|项)"
)
_OPENING, _CLOSING = r"(?:#{1,6}[ \t]*|\*\*|__|<|【)?", r"[ \t]*(?:\*\*|__|】)?"
_HEADER = re.compile(
    rf"(?:(?:^|(?<=[\n.?!:,;。？！：，；(]))[ \t]*{_OPENING}(?:{_HEADER_WORDS}){_CLOSING}[.:：>]?{_CLOSING}"
    rf"|(?<=\s){_OPENING}(?=[A-Z选备候可])(?:{_HEADER_WORDS}){_CLOSING}[:：]{_CLOSING}"
    rf"|(?<![些个种的列下上确])选项[:：])\s*$"
)
_COLON_HEADER = re.compile(rf"(?:\b(?:{_HEADER_WORDS})|选项){_CLOSING}[:：]{_CLOSING}\s*$")
_AT_LINE_START = re.compile(rf"^[ \t]*(?:[-*•][ \t]+)?{_MARK}[ \t]*", re.MULTILINE)
_IN_LIST = re.compile(rf"(?:^|(?<=[\s,;:?|/>])|(?<=[^\x00-\x7fＡ-Ｚａ-ｚ])|(?=[（【])){_MARK}\s*")
_BLANK = re.compile(r"(?:[（(]\s*[)）]|_{2,})\s*[.。:：]?$")
_LABEL = re.compile(r"[#*\s]*(?:(?i:question)|问题|题目)\s?[:：]\s*(?:\*\*\s*)?(?=\S)")
_AND = re.compile(r"(?:[,，、]\s*)?(\b(?:and|or)|&|[和或与及]|还是)$", re.IGNORECASE)
_BREAK = re.compile(r"[.!]\s+(?=[^\sa-z\d])|[。！]\s*(?=\S)")
_ABBREVIATIONS = frozenset(
    ("dr", "mr", "mrs", "ms", "st", "prof", "no", "vs", "jr", "sr", "inc", "ltd", "co", "mt", "ft", "fig", "ave")
)
_MOST_LISTS = 32  # lists that are tried, from the end of a text
_HOW = re.compile(
    r"\b(?:letters?|options?|choices?|single word|one word|short phrase|word or phrase|directly|multiple-choice)\b",
    re.IGNORECASE,
)
_KEPT_LABEL = re.compile(r"(?:hint|context|note|caption|background|ocr|提示|注)\s*[:：]", re.IGNORECASE)
_INSTRUCTS = re.compile(
    r"(?i:(?:(?:please|only|directly|simply|just)\s+){0,3}(?:answer|respond|reply|select|choose|pick|output|provide|"
    r"give|return|write|think|reason|explain|let's|your|the answer|do not|don't))\b"
)


def strip_instructions(text: str) -> str:
    """`text` without the instructions at its end ("Answer with the option's letter ...", "The best answer is:").

    Only what says how to answer is taken off, and never all of the text: a sentence that says what to look for is the
    question.
    """
    text = text.strip()
    end = len(text)
    while start := instruction_start(text, end):
        end = start
        while end and text[end - 1].isspace():
            end -= 1
    return text[:end]


def split_question(text: str) -> tuple[str, tuple[str, ...]]:
    """(question, choices without letters) of a benchmark's prompt; no choices where none are listed for certain.

    Choices are lettered from A without a gap, at least two: lines that begin with `(A)`, `A.`, `A)`, `A:` or `A -`;
    else a list within a line in any of these forms, behind "Options:", an instruction how to answer, a question mark, a
    blank to fill in, or at the start of a line; elsewhere as `(A) ... (B) ...`. Headers and instructions before the
    list are left out. What follows the last choice in a line or a sentence of its own is an instruction too,
    unless it asks or tells something ("Hint: ..."): then it ends the question.
    """
    stripped = strip_instructions(text)
    found = next(filter(None, (_read(stripped, chain) for chain in _lists(stripped))), (stripped, ()))
    return _LABEL.sub("", found[0], count=1) if _LABEL.match(found[0]) else found[0], found[1]


def without_letters(choices: Iterable[str | int | float]) -> tuple[str, ...]:
    """Choices without the letters that a benchmark writes before them: `(A) red`, `B. blue` -> `red`, `blue`.

    Letters are taken off only if every choice has its own, in order from A, with a separator and a text behind it:
    `A.M.` and `P.M.` stay.
    """
    texts = tuple(str(choice).strip() for choice in choices)
    found = [_LETTERED.fullmatch(text) for text in texts]
    return tuple(match["text"].strip() for match in found if match is not None) if _in_order(found) else texts


def lettered_otherwise(choices: Iterable[str | int | float]) -> bool:
    """Whether every choice has a letter before it, but not its own: `B. red`, `A. blue`; or no text: `A. red`, `B.`.

    The letter of such a choice is not the one that it is known by. Letters that stand alone are the choices themselves.
    """
    texts = [str(choice).strip() for choice in choices]
    found = [_LETTERED.fullmatch(text) for text in texts]
    marked = all(match or _ALONE.fullmatch(text) for match, text in zip(found, texts, strict=True))
    return marked and any(found) and not _in_order(found)


def _in_order(found: Sequence[re.Match[str] | None]) -> bool:
    letters = "".join(_letter(mark) if mark is not None else "-" for mark in found)
    expected = "".join(map(choice_letter, range(min(26, len(letters)))))
    return len(letters) > 1 and letters in (expected, expected.lower())


def _lists(text: str) -> Iterator[list[re.Match[str]]]:
    """What may be the list of choices: first those in lines, of each kind the one that begins last first."""
    yield from _chains(list(_AT_LINE_START.finditer(text)))
    firsts = [mark.start() for mark in _IN_LIST.finditer(text) if _letter(mark) in "Aa"]
    for place in reversed(firsts[-_MOST_LISTS:]):
        chain = _from_first(text, place)
        if chain:
            yield chain


def _chains(marks: Sequence[re.Match[str]]) -> Iterator[list[re.Match[str]]]:
    """Markers A, B, C, ... in a row, the one that begins last first; each as long as it gets."""
    following: list[int | None] = [None] * len(marks)
    nearest: dict[str, int] = {}
    starts = []
    for index in range(len(marks) - 1, -1, -1):
        letter = _letter(marks[index])
        following[index] = nearest.get(chr(ord(letter) + 1))
        nearest[letter] = index
        if letter in "Aa" and following[index] is not None:
            starts.append(index)
    for start in starts[:_MOST_LISTS]:
        chain: list[re.Match[str]] = []
        at: int | None = start
        while at is not None and len(chain) < 26:
            chain.append(marks[at])
            at = following[at]
        yield chain


def _from_first(text: str, place: int) -> list[re.Match[str]]:
    """The list whose first marker begins at `place`, its letters all written as the first; empty without a second."""
    found: list[re.Match[str]] = []
    for mark in _IN_LIST.finditer(text, place):
        alike = not found or _style(mark) == _style(found[0])
        if alike and _letter(mark).upper() == choice_letter(len(found)):
            found.append(mark)
        if not found or len(found) == 26:
            break
    return found if len(found) > 1 else []


def _letter(mark: re.Match[str]) -> str:
    return unicodedata.normalize("NFKC", mark["inner"] or mark["bare"])


def _style(mark: re.Match[str]) -> tuple[str | None, str | None, bool]:
    return mark["closing"], mark["mark"], _letter(mark).isupper()


def _read(text: str, chain: Sequence[re.Match[str]]) -> tuple[str, tuple[str, ...]] | None:
    """(question, choices) of a list; None where it cannot be one."""
    ends = [mark.start() for mark in chain[1:]] + [len(text)]
    texts = [text[mark.end() : end].strip() for mark, end in zip(chain, ends, strict=True)]
    question, announced = _without_introduction(text[: chain[0].start()])
    inline = not all(_begins_line(text, mark) for mark in chain[1:])
    joints = {found[1].lower() for other in texts[:-1] if (found := _AND.search(other))}
    *others, last = texts
    last, rest = _without_sentences(last, others) if inline else _without_lines(last, others)
    asks = "?" in rest or "？" in rest
    if not announced and _is_prose(text, chain, question, inline=inline, joints=joints, asks=asks):
        return None
    if inline:
        *others, last = _without_commas([*others, strip_instructions(last)])
        if question.endswith("(") and last.endswith(")"):
            question, last = question[:-1].rstrip(), last[:-1].rstrip()
        if last.endswith(("?", "？")) and not all(other.endswith(("?", "？")) for other in others):
            return None  # the question goes on behind letters that it mentions
    if _AT_LINE_START.match(rest) or not all((*others, last)):
        return None
    if asks or (_KEPT_LABEL.match(rest) and not _HOW.search(rest)):
        question = f"{question} {rest}".strip()
    return (question, (*others, last)) if question else None


def _without_introduction(before: str) -> tuple[str, bool]:
    """(the question before a list, whether a header or an instruction announced the list)."""
    question, announced = before.strip(), _COLON_HEADER.search(before[-WINDOW:]) is not None
    while question:
        shorter = question[:-WINDOW] + _HEADER.sub("", question[-WINDOW:]).rstrip()
        if shorter == question:
            announced = announced or instruction_start(question, len(question)) is not None
            shorter = strip_instructions(question)
        if shorter == question:
            break
        question, announced = shorter, True
    return question, announced


def _is_prose(
    text: str, chain: Sequence[re.Match[str]], question: str, *, inline: bool, joints: set[str], asks: bool
) -> bool:
    """Whether letters that nothing announces may stand within sentences: `Look at (A) the dog and (B) the cat.`"""
    asked = question.endswith(("?", "？")) or _BLANK.search(question[-80:]) is not None
    if joints and asks:
        return True
    if not inline:
        return chain[0]["mark"] in ("-", "–", "—") and not asked  # "A - B" may be an edge
    if asked or (question and _begins_line(text, chain[0])):
        return bool(joints) or (asks and not asked)
    if not all(_stands_apart(text, mark) for mark in chain):
        return True
    within = question[-1:] not in ("", *".!:。！：")
    return within and (asks or bool(joints - {"or", "或", "还是"}))


def _stands_apart(text: str, mark: re.Match[str]) -> bool:
    """Whether a marker is a capital in parentheses with spaces around it."""
    spaced = text[mark.end() - 1].isspace() and not text[max(0, mark.start() - 1) : mark.start()].strip()
    return spaced and mark["closing"] == ")" and mark["inner"].isupper()


def _begins_line(text: str, mark: re.Match[str]) -> bool:
    return text[max(0, mark.start() - 8) : mark.start()].rstrip(" \t")[-1:] in ("", "\n")


def _without_lines(last: str, others: Sequence[str]) -> tuple[str, str]:
    """(the last choice, what follows it) of a list in lines."""
    if any("\n" in other for other in others):
        head, _, rest = last.partition("\n\n")
        return (last, "") if any("\n\n" in other for other in others) else (head.strip(), rest.strip())
    lines = last.split("\n")
    for index, line in enumerate(lines[1:], start=1):
        word = line.strip()
        wrapped = bool(word) and (line[0].isspace() or word[0].islower())
        if not wrapped or _INSTRUCTS.match(word):
            return "\n".join(lines[:index]).strip(), "\n".join(lines[index:]).strip()
    return last, ""


def _without_sentences(last: str, others: Sequence[str]) -> tuple[str, str]:
    """(the last choice, what follows it) of a list within a line: further lines, and sentences as no other has."""
    last, _, rest = last.partition("\n") if not any("\n" in other for other in others) else (last, "", "")
    if any(map(_sentence_end, others)):
        return last.strip(), rest.strip()
    end = _sentence_end(last)
    return (last[:end].strip(), f"{last[end:]}\n{rest}".strip()) if end else (last.strip(), rest.strip())


def _sentence_end(text: str) -> int:
    """Where the first sentence of several ends; 0 if there is only one."""
    for found in _BREAK.finditer(text):
        word = text[max(0, found.start() - 12) : found.start()].rpartition(" ")[2].lstrip("(\"'")
        if word.lower() not in _ABBREVIATIONS and not (len(word) == 1 and "A" <= word <= "Z"):
            return found.end()
    return 0


def _without_commas(texts: Sequence[str]) -> list[str]:
    """The texts without the commas between them, the "or" before the last, and the full stop behind it."""
    *others, last = texts
    others[-1] = _AND.sub("", others[-1]).rstrip() or others[-1]
    for mark in (",", ";", "，", "；", "、", "|", "/"):
        if all(other.endswith(mark) for other in others[: max(1, len(others) - 1)]):
            others = [other.removesuffix(mark).rstrip() for other in others]
            last = last.removesuffix(mark).rstrip()
    if not any(other.endswith((".", "。")) for other in others):
        last = last.removesuffix(".").removesuffix("。").rstrip()
    return [*others, last]
