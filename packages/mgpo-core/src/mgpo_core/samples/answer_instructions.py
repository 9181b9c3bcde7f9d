"""Sentences that say how to answer ("Answer with the option's letter."), and not what to look for.

A sentence says how to answer if it asks for a form ("the option's letter", "from the given choices", "a single word")
and every word of it belongs to such requests: "Answer its colour in a single word." names a colour, and is a question.
"""

from __future__ import annotations

import re

__all__ = ["WINDOW", "instruction_start"]

WINDOW = 800
"""Characters; no instruction is longer."""

_KIND = r"(?:options?|choices?|answers?|alternatives?|candidates?)"
_RIGHT = r"(?:best|correct|right|final|appropriate|suitable|accurate|likely|matching|corresponding)"
_FORM_NOUN = r"(?:words?|phrases?|sentences?|numbers?|integers?|digits?|characters?|paragraphs?)"
_LETTER = r"\(?[A-Z]\)?(?![\w'])"
_LETTERS = rf"{_LETTER}(?:\s?[,/]\s?(?:(?:or|and|或)\s?)?{_LETTER}|\s?(?:or|and|或)\s?{_LETTER})++"
_NAME = r"(?:letters?|numbers?|ids?|keys?|labels?)"
_MARKED = r"\\boxed(?:\{[^{}\n]{0,20}\})?|</?(?:answer|think)>"

_WORDS = (
    "a|an|the|this|these|that|those|your|you|my|me|each|one|only|just|simply|directly|briefly|concisely|exactly|please|"
    "kindly|first|then|finally|answer|answers|answering|respond|response|reply|select|choose|pick|output|provide|give|"
    "return|write|use|using|put|enclose|enclosed|think|reason|let|let's|us|make|sure|do|not|don't|must|should|can|will|"
    "is|are|be|if|question|questions|problem|multiple|multi|single|choice|choices|option|options|alternatives|"
    "candidates|letter|letters|word|words|phrase|phrases|sentence|sentences|short|brief|few|best|correct|right|final|"
    "appropriate|suitable|most|accurate|likely|corresponding|corresponds|matching|valid|answers|from|of|to|with|within|"
    "in|inside|between|by|and|or|as|among|without|any|anything|other|than|else|nothing|no|yes|true|false|given|"
    "following|above|below|provided|available|listed|possible|step|carefully|explanation|explanations|explain|"
    "explaining|reasoning|format|form|tags|capital|uppercase|at|end|e.g.|language|english|chinese|need"
)
_PICTURE = (
    r"(?:based\s+on|according\s+to)\s+(?:(?:the|this|these|given|provided|above)\s+){0,3}"
    r"(?:images?|pictures?|photos?|figures?)"
)
_ENGLISH = re.compile(
    rf"(?:(?:{_LETTERS}|{_MARKED}|{_PICTURE}|(?:single|one|or)\s(?:float\s|whole\s)?{_FORM_NOUN}|"
    rf"{_KIND}(?:['’]s?)?\s{_NAME}|(?:{_WORDS})(?:['’]s|s['’]|['’])?)"
    rf"(?![\w'’])[\s,;:.!\"'“”‘’()*_`\-]*+)++",
    re.IGNORECASE,
)
_ENGLISH_FORM = re.compile(
    rf"\b{_KIND}(?:['’]s?)?\s{_NAME}\b|\bletters?\W{{1,3}}{_LETTERS}"
    rf"|\bletters?\b.{{0,40}}?\b(?:of|for|from|corresponding\s+to)\s(?:\w+\s){{0,3}}{_KIND}\b"
    r"|\b(?:answer|respond|response|reply)\b.{0,40}?\b(?:with|only|just|single|one|capital)\s(?:(?:the|a|an|single|one|capital|correct|corresponding)\s){0,3}letters?"
    r"(?=\W*$|\s?[(,;]|\s(?:only|directly|and|without)\b)"
    rf"|\b(?:select|choose|pick)\b.{{0,20}}?\b(?:{_RIGHT}|one)\s{_KIND}\b"
    rf"|\bonly\b.{{0,20}}?\b{_RIGHT}\s{_KIND}\b"
    rf"|\b(?:from|among|between|one\sof)\s(?:(?:all|the|these|those|given|following|above|below|provided|available|"
    rf"listed|possible|answer)\s){{1,4}}{_KIND}\b"
    rf"|\b(?:answer|respond|response|reply)\b.{{0,80}}?\b(?:(?:single|one|short|few|brief)\s(?:float\s)?(?:{_FORM_NOUN}|"
    rf"answer|response)|word\sor|short\sphrase|directly|briefly|concisely|yes\sor\sno|{_LETTERS}(?=\W*$))"
    rf"|\bstep\sby\sstep\b|{_MARKED}"
    r"|^\W*please\s(?:answer|respond|reply)\W*$"
    r"|^\W*(?:please\s)?answer\s(?:the|this)\s(?:above\s|following\s)?(?:multiple[ -]choice\s)?question\W*$"
    r"|^\W*(?:please\s)?(?:select|choose|pick)\b[^:：]*[:：]\W*$",
    re.IGNORECASE,
)
_POLITE = r"(?:(?:please|kindly|only|directly|simply|just|first|then|now|you\s(?:must|should))[\s,]+){0,3}"
_VERB = (
    r"(?:answer|respond|reply|select|choose|pick|output|provide|give|return|write|use|put|enclose|think|reason|"
    r"let['’]s|do\snot|don['’]t|your\s(?:final\s)?(?:answer|response)\s(?:should|must))"
)
_BEHIND = r"(?:^|(?<=[.!:)。！：])|(?<=[.!:)。！：]\s)"
_ENGLISH_START = re.compile(
    rf"{_BEHIND}|(?<=\s)(?=[*_(\[\"]{{0,3}}[A-Z]))(?i:(?:hint|note|instructions?)\s?[:：]\s?)?"
    rf"(?=[*_(\[\"]{{0,3}}(?i:{_POLITE}{_VERB})\b)"
)

_CHINESE = re.compile(
    rf"(?:(?:{_LETTERS}|{_MARKED}|(?:根据|基于|结合|依据)(?:以上|上述|所给|给定|提供的|这张|该|此|的)*+"
    r"(?:图片|图像|图中|图|画面|照片)(?:的?内容|中?的?信息)?"
    r"|(?:图片|图像|图)中(?:给定|提出)?的问题|最终|解答|请|你|您|直接|只需要?|仅|只能?|必须|需要?|要|先|再|然后|最后|从|在|由|以下|以上|以|使用|用|按照?"
    r"|上述|上面|下列|下面|给定|所给|所提供|提供|列出|的|地|中|里|内|选择题?|选项|选出|选取|挑选|选|单项|单选题?|多项|多选题?"
    r"|答案|回答|作答|答|输出|给出|写出|返回|填写|字母|编号|序号|代号|正确|准确|最佳|合适|恰当|符合|最|对应|相应"
    r"|一个|单个|一|个|项|大写|英文|单词|词语?|短语|句话?|简短|简洁|简要|明确|并|且|和|与|或者?|将|把|作为|为|是|即可"
    r"|问题|题目|此|这道?|该|本|题|不要|无需|不需要?|任何|其他|其它|解释|说明|推理|思考|过程|逐步|步|进行|来|后|之后|放|写|置于"
    r"|标签|格式|形式|认真|仔细)[\s，、,：:。.！!（）()*'\"‘’“”]*+)++"
)
_CHINESE_FORM = re.compile(
    r"选项|答案|作答|逐步|一步|回答(?:此|本|该|这道?|这个|上述|以上|下列)?(?:问题|题)?\W*$|(?:只|仅).{0,8}字母|字母.{0,8}回答"
    rf"|(?:词|短语|一句话).{{0,8}}回答|回答.{{0,20}}(?:词|短语|一句话|简短|简洁|简要|字母)|选择\W{{0,4}}$|{_MARKED}"
)
_CHINESE_START = re.compile(
    rf"{_BEHIND}|(?<=\s))(?:(?:提示|注意?)\s?[:：]\s?)?(?=[（(*]{{0,2}}"
    r"(?:请|根据|基于|结合|依据|只需|仅|直接|从|选择|选出|使用|先|不要|将|把|回答))"
)
_LANGUAGES = ((_ENGLISH_START, _ENGLISH, _ENGLISH_FORM), (_CHINESE_START, _CHINESE, _CHINESE_FORM))

_NAMED = r"(?:(?:the|your|my)\s)?(?:(?:best|correct|final|right)\s)?(?:answer|option|choice|response)(?:\sis)?"
_ANSWER_IS = re.compile(
    rf"(?:^|(?<=[.!)。！）])\s*|(?<=\s)(?=[*_]*[A-Z])(?<!\bthe\s)(?<!\byour\s)(?<!\bfinal\s)(?<!\bcorrect\s)(?<!\bbest\s))"
    rf"[*_#\s]*(?i:{_NAMED}|ASSISTANT)\s?[:：][*_\s]*(?:\(\s*)?$"
    r"|(?:^|(?<=[\s.!)。！）]))[*_\s]*(?:正确|最佳|你的|您的)?(?:答案?)(?:是|为)?\s?[:：][*_\s]*$"
)
_TOKEN = re.compile(r"(?:<\|[^|<>\s]{1,40}\|>|</s>|</(?i:options|choices|question)>)\s*(?:assistant\s*)?$")
_LINE_OF_A_CHOICE = re.compile(
    r"(?:^|\n)\s*(?:[-*•]\s)?\**[(（\[【]?[A-Za-zＡ-Ｚａ-ｚ]\**[)）\]】.．:：、]{1,2}\**\s*$"
)


def instruction_start(text: str, end: int) -> int | None:
    """Where the instruction how to answer starts that ends at `end`, in the last line; None without one.

    Tokens that end a turn count as one. A choice in a line of its own is none, whatever it says.
    """
    if token := _TOKEN.search(text, max(0, end - 80), end):
        return token.start()
    start = max(0, end - WINDOW)
    start = 1 + max(start - 1, *(text.rfind(mark, start, end) for mark in "?？\n"))
    tail = text[start:end]
    if found := _ANSWER_IS.search(tail):
        return start + found.start()
    for starts, sentence, form in _LANGUAGES:
        place = len(tail)
        for found in reversed(list(starts.finditer(tail))):
            said = tail[found.end() : place]
            if said and not sentence.fullmatch(said):
                break
            if not said or form.search(said):  # a label such as "Hint:" has nothing of its own
                place = found.start()
        place += start
        if place < end and not _LINE_OF_A_CHOICE.search(text[max(0, place - 12) : place]):
            return place
    return None
