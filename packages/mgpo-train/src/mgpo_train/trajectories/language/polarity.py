"""What a sentence affirms and what it denies: a state that runs along its words."""

from __future__ import annotations

import re
from functools import lru_cache

from mgpo_train.trajectories.language.sentences import Sentence

__all__ = ["CONTRASTS", "denied", "denied_afterwards", "ends_denied"]

_PLAIN_DENIALS = {"no", "not", "without", "neither", "nor", "never", "nowhere", "none", "nothing", "cannot", "fails"}
_ABSENCES = {"lack", "lacks", "lacking", "missing", "absent", "absence", "misses"}
CONTRASTS = {"but", "while", "whereas", "however", "instead", "though", "although", "yet", "only"}
"""Words after which a denial no longer holds."""
_ASSERTIONS = {
    "hold", "holds", "holding", "has", "have", "having", "show", "shows", "showing", "contain", "contains",
    "containing", "include", "includes", "including", "depict", "depicts", "display", "displays", "feature", "features",
    "adds", "add", "see", "find", "there", "with", "which", "where", "it", "they", ":",
    "present", "visible", "appears", "appear",
}  # fmt: skip
_LIES = {"is", "are", "lies", "lie", "appears", "appear", "sits", "stands", "stays", "remains"}
_TRANSPARENT = {"do", "does", "did", "be", "been", "being", "to", "any", "even", "also", "ever", "actually", "clearly"}


def _denies(word: str) -> bool:
    return word in _PLAIN_DENIALS or word in _ABSENCES or word.endswith("n't")


@lru_cache(maxsize=512)
def denied(sentence: Sentence) -> tuple[bool, ...]:
    """For each token, whether what stands there is denied."""
    words = [token.letter for token in sentence.tokens]
    states, state, cue = [], False, ""
    for index, word in enumerate(words):
        before = words[:index]
        if _denies(word) and words[index + 1 : index + 2] != ["only"]:
            state, cue = not (word in _ABSENCES and _last_is_denial(before)), word
        elif state and _affirms(word, before, cue):
            state = False
        states.append(state)
    return tuple(states)


def _affirms(word: str, before: list[str], cue: str) -> bool:
    """Whether a word ends the denial that `cue` began."""
    if word in CONTRASTS:
        return not before or before[-1] != "not"
    if word in _ASSERTIONS:
        return not _last_is_denial(before)
    if word == "in":
        return before[-1] in _LIES
    return cue == "no" and word in ("a", "an", "the") and before[-1] == "and"


def _last_is_denial(before: list[str]) -> bool:
    meant = [word for word in before if word not in _TRANSPARENT and not word.endswith("ly")]
    return bool(meant) and _denies(meant[-1])


def ends_denied(sentence: Sentence, start: int, end: int) -> bool:
    """Whether a denial that begins among the tokens from `start` to `end` still holds at the end."""
    cues = any(_denies(token.letter) for token in sentence.tokens[start:end])
    return cues and denied(sentence)[end - 1]


_BEHIND = (
    r"(?: (?:is|are|was|were|seem|seems|does|do|can|could))?(?: (?:also|both|clearly|entirely|completely|however|,))*"
    r" (?:not|missing|absent|nowhere|cannot|never|\w+n't)\b(?! (?:in |at |on )?(?:the )?[PA]\b| only)"
)
_ONE_BEHIND = re.compile(rf"L{_BEHIND}")


def denied_afterwards(sentence: Sentence, index: int) -> bool:
    """Whether the words right behind a label deny it, as in "the L is missing"."""
    return bool(_ONE_BEHIND.match(sentence.after(index)))
