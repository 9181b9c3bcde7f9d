"""Finds JSON-like values in free text: iterative, linear in the text's length, never raises.

Language models write JSON with single quotes, trailing commas, bare keys, comments, tuples, or leave it open; prose
around it holds stray brackets. So this is one forward pass with an explicit stack: what closes properly is a value,
what breaks is given up at the place where it broke, and the values that were already complete inside it are kept.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Any

FENCE = re.compile(r"`{3,}")

MAX_DEPTH = 32  # deeper nesting is not a list of boxes, and a bound keeps every later walk over a value safe
_MAX_DIGITS = 400  # a longer number overflows a double anyway

# Possessive quantifiers (*+, ++): none of these can backtrack. The lookahead skips brackets that cannot start JSON.
_DICT = r"\{(?=\s*+(?:[\"'\w}]|/[/*]))"
_OPENING = re.compile(r"\[(?!\s*+\])\[*+|\{(?=\s*+(?:[\"'\w]|/[/*]))")
_SPACE = r"\s*+(?:(?://|\#)[^\n]{0,200}+(?=\n)\s*+|/\*(?:[^*]|\*(?!/)){0,200}+\*/\s*+){0,4}+"  # and comments
_EMPTY = re.compile(r"\[\s*+\]|\{\s*+\}")
_TOKEN = re.compile(
    rf"""{_SPACE}(?:
      (?P<open>\[++|{_DICT}|\()
    | (?P<close>[\]}})])
    | (?P<comma>,)
    | (?P<colon>:)
    | (?P<quote>["'])
    | (?P<number>[-+]?(?:\d++(?:\.\d*+)?+|\.\d++)(?:[eE][-+]?\d++)?+(?![\w.]))
    | (?P<word>[-+]?[^\W\d]\w*+)
    )""",
    re.VERBOSE,
)
_QUOTES = {quote: re.compile(rf"\\.|[{quote}\n]|```", re.DOTALL) for quote in "\"'"}
_AFTER_STRING = re.compile(r"\s*+(?:[,:\]})]|\Z|/[/*])")
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_CONTROL = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}
_PARTNER = {"[": "]", "{": "}", "(": ")"}
_WORDS: dict[str, Any] = {
    "true": True, "false": False, "null": None, "none": None,
    "nan": float("nan"), "infinity": float("inf"), "inf": float("inf"),
}  # fmt: skip
_WORDS |= {sign + word: factor * _WORDS[word] for word in ("infinity", "inf") for sign, factor in (("+", 1), ("-", -1))}


@dataclass(frozen=True, slots=True)
class Value:
    """A complete list or dict found at `text[start:end]`; `rescued` from inside something that broke, or whole."""

    value: list[Any] | dict[str, Any]
    start: int
    end: int
    rescued: bool = False


@dataclass(slots=True)
class _Frame:
    """A container that is still open."""

    value: list[Any] | dict[str, Any]
    close: str
    start: int
    awaits: str  # "item" (or the end), "key" (or the end), "colon", "value", "comma" (or the end)
    key: str = ""
    inner: list[Value] = field(default_factory=list)


def find_values(text: str) -> tuple[list[Value], bool]:
    """The outermost complete lists and dicts of `text` in order, and whether something broke that looked like JSON.

    Empty ones standing alone are left out, unless there is nothing else: then the first is given.
    """
    scan = _Scan(text)
    scan.run()
    empty = None if scan.found else _EMPTY.search(text)
    if empty is not None:
        scan.found.append(Value([] if empty.group()[0] == "[" else {}, *empty.span()))
    return scan.found, scan.broken


class _Scan:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.stack: list[_Frame] = []
        self.found: list[Value] = []
        self.broken = False
        self._open_until = {'"': 0, "'": 0}  # before this place no string of that quote closes: looked up already

    def run(self) -> None:
        while True:
            if not self.stack:
                opening = _OPENING.search(self.text, self.at)
                if opening is None:
                    return
                self._open(opening.group(), opening.start())
                continue
            token = _TOKEN.match(self.text, self.at)
            if token is None or not self._take(token):
                self._give_up()

    def _take(self, token: re.Match[str]) -> bool:
        """Consume one token; False when it does not belong here (it is then looked at afresh, outside)."""
        kind, awaits = token.lastgroup, self.stack[-1].awaits
        start = token.start(token.lastgroup or 0)
        if kind == "comma" and awaits == "comma":
            self.stack[-1].awaits = "key" if self.stack[-1].close == "}" else "item"
        elif kind == "colon" and awaits == "colon":
            self.stack[-1].awaits = "value"
        elif kind == "close" and awaits in ("item", "key", "comma") and token["close"] == self.stack[-1].close:
            self._close(token.end())
            return True
        elif kind == "open" and awaits in ("item", "value"):
            self._open(token["open"], start)
            return True
        elif kind in ("quote", "word") and awaits == "key":
            return self._key(token, start)
        elif kind in ("quote", "word", "number") and awaits in ("item", "value"):
            return self._scalar(token, start)
        else:
            return False
        self.at = token.end()
        return True

    def _open(self, run: str, start: int) -> None:
        """Open the containers of `run`; of a long run of brackets only the innermost lie within bounds."""
        kept = run[-MAX_DEPTH:]
        if len(self.stack) + len(kept) > MAX_DEPTH:
            self._give_up()
        self.at = start + len(run)
        for index, bracket in enumerate(kept, start=self.at - len(kept)):
            value: list[Any] | dict[str, Any] = {} if bracket == "{" else []
            self.stack.append(_Frame(value, _PARTNER[bracket], index, "key" if bracket == "{" else "item"))

    def _close(self, end: int) -> None:
        frame = self.stack.pop()
        self.at = end
        done = Value(frame.value, frame.start, end)
        if self.stack:
            self.stack[-1].inner.append(done)
            self._put(frame.value)
        else:
            self.found.append(done)

    def _put(self, value: Any) -> None:
        frame = self.stack[-1]
        if isinstance(frame.value, dict):
            frame.value[frame.key] = value
        else:
            frame.value.append(value)
        frame.awaits = "comma"

    def _key(self, token: re.Match[str], start: int) -> bool:
        key = token["word"] if token["word"] else self._string(start)
        if key is None:
            return False
        if token["word"]:
            self.at = token.end()
        self.stack[-1].key, self.stack[-1].awaits = key, "colon"
        return True

    def _scalar(self, token: re.Match[str], start: int) -> bool:
        if token["quote"]:
            string = self._string(start)
            if string is None:
                return False
            self._put(string)
            return True
        word = (token["word"] or "").lower()
        if word and word not in _WORDS:
            return False
        self._put(_WORDS[word] if word else _number(token["number"]))
        self.at = token.end()
        return True

    def _string(self, start: int) -> str | None:
        """The string that opens at `start`, or None when it does not close on its line; moves past it.

        A quote counts as the closing one only where a string may end, so that 'the dog's tail' is read whole.
        """
        quote = self.text[start]
        if start < self._open_until[quote]:
            return None
        place = start + 1
        while (mark := _QUOTES[quote].search(self.text, place)) is not None:
            if mark.group() in ("\n", "```"):
                break
            if mark.group() == quote and _AFTER_STRING.match(self.text, mark.end()):
                self.at = mark.end()
                return _unescaped(self.text[start + 1 : mark.start()])
            place = mark.end()
        self._open_until[quote] = len(self.text) if mark is None else mark.start()
        return None

    def _give_up(self) -> None:
        """Drop the open containers, keep what was complete inside them; the scan goes on where it stands."""
        content = any(frame.value or frame.awaits == "colon" for frame in self.stack)
        self.broken = self.broken or content or len(self.stack) > 1
        for frame in self.stack:
            self.found.extend(replace(value, rescued=True) for value in frame.inner)
        self.stack.clear()


def _number(literal: str) -> int | float:
    if len(literal) > _MAX_DIGITS:
        return float("nan")
    try:
        return int(literal)
    except ValueError:
        return float(literal)


def _unescaped(string: str) -> str:
    if "\\" not in string:
        return string
    string = _ESCAPE.sub(lambda escape: _character(escape[1]), string)
    # JSON writes what lies beyond 16 bits as two halves; a half alone could not be saved as UTF-8
    return string.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _character(code: str) -> str:
    return chr(int(code[1:], 16)) if len(code) > 1 else _CONTROL.get(code, code)
