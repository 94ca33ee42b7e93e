"""Texts that mark their turns inside: "人类: ... AI: ..." and "Human: ... Assistant: ...". Must not import torch.

A named format a language, each with a chat template of the same words, so that a model which has no template of its
own answers to the words that it was taught.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgetune.tune.stepwise.chats import Chat, Turn
from edgetune.tune.stepwise.formats.format import Cells, Field, Format, FormatFault, words


@dataclass(frozen=True)
class Marks:
    """The words of one language that mark who speaks."""

    asking: tuple[str, ...]
    answering: tuple[str, ...]

    def asks(self, line: str) -> bool:
        """Whether a line begins with a question's mark."""
        return _marks_start(self.asking, line)

    def answers(self, line: str) -> bool:
        """Whether a line begins with an answer's mark."""
        return _marks_start(self.answering, line)


def _marks_start(words: tuple[str, ...], line: str) -> bool:
    return re.match(rf"[ \t]*(?:{'|'.join(words)})\s?[:：]", line) is not None


_ENGLISH = Marks(("Human", "User"), ("Assistant", "AI"))
_CHINESE = Marks(("人类", "用户", "问"), ("AI", "助手", "机器人", "答"))
LANGUAGES = (_CHINESE, _ENGLISH)


def _marks(asks: tuple[str, ...], answers: tuple[str, ...], *, within_lines: bool) -> re.Pattern[str]:
    """Finds marks at the start of lines, or also after white space or the end of a sentence."""
    before = r"(?:^|(?<=[\s。！？!?.]))" if within_lines else r"^[ \t]*"
    return re.compile(rf"(?m){before}(?:(?P<asks>{'|'.join(asks)})|(?P<answers>{'|'.join(answers)}))\s?[:：]\s*")


def _marked(name: str, asks: tuple[str, ...], answers: tuple[str, ...], example: str) -> Format:
    at_lines = _marks(asks, answers, within_lines=False)
    anywhere = _marks(asks, answers, within_lines=True)

    def found_in(text: str) -> list[re.Match[str]]:
        """The marks: where each role has one at the start of a line, only those count."""
        marks = list(at_lines.finditer(text))
        if {mark.lastgroup for mark in marks} != {"asks", "answers"}:
            marks = list(anywhere.finditer(text))
        # The words that the first question and the first answer are marked with: "User:" inside a chat of Human and
        # Assistant is something that one of them says.
        used = [next((mark[role] for mark in marks if mark.lastgroup == role), "") for role in ("asks", "answers")]
        return [mark for mark in marks if mark[str(mark.lastgroup)] in used]

    def chat(cells: Cells) -> Chat:
        text = words(cells["text"], "text")
        marks = found_in(text)
        if not marks or text[: marks[0].start()].strip():
            raise FormatFault(f"the text does not begin with a mark such as {asks[0]!r} and a colon")
        roles = [mark.lastgroup for mark in marks]
        for number, role in enumerate(roles):
            if role != ("asks", "answers")[number % 2]:
                raise FormatFault(f"the marks do not take turns: {', '.join(mark.group().strip() for mark in marks)}")
        if len(marks) < 2:
            raise FormatFault(f"no mark such as {answers[0]!r} and a colon follows the question")
        ends = [*(mark.start() for mark in marks[1:]), len(text)]
        contents = [text[mark.end() : end].strip() for mark, end in zip(marks, ends, strict=True)]
        return Chat(
            tuple(
                Turn("user" if role == "asks" else "assistant", content)
                for role, content in zip(roles, contents, strict=True)
            )
        )

    def fits(cells: Cells) -> bool:
        text = cells["text"]
        if not isinstance(text, str):
            return False
        marks = found_in(text)
        starts = bool(marks) and marks[0].lastgroup == "asks" and not text[: marks[0].start()].strip()
        return starts and any(mark.lastgroup == "answers" for mark in marks)

    fields = (Field("text", ("text", "content", "conversation", "dialog", "dialogue", "文本", "内容")),)
    return Format(name, "chat", example, fields, chat, fits, template=name)


HUMAN_AI_EN = _marked("human-ai-en", _ENGLISH.asking, _ENGLISH.answering, '{"text": "Human: Hi\\nAssistant: Hello!"}')
HUMAN_AI_ZH = _marked("human-ai-zh", _CHINESE.asking, _CHINESE.answering, '{"text": "人类: 你好\\nAI: 你好！"}')
