"""Reading a Dockerfile: its instructions, by docs.docker.com/reference/dockerfile. No engine is needed for it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

KEYWORDS = frozenset(
    ("ADD ARG CMD COPY ENTRYPOINT ENV EXPOSE FROM HEALTHCHECK LABEL MAINTAINER ONBUILD RUN SHELL STOPSIGNAL USER "
     "VOLUME WORKDIR").split()
)  # fmt: skip
_FLAG = re.compile(r"--([a-z-]+)=(\S+)\s+")


@dataclass(frozen=True)
class Instruction:
    """One instruction: its keyword in capitals, its `--name=value` flags and what follows, on one line."""

    line: int
    keyword: str
    flags: dict[str, str]
    text: str

    def words(self) -> list[str] | None:
        """The arguments of the exec form, a JSON array of strings; None where it is the shell form."""
        try:
            found = json.loads(self.text)
        except ValueError:
            return None
        return found if isinstance(found, list) and all(isinstance(word, str) for word in found) else None


def instructions(text: str) -> list[Instruction]:
    """The instructions of a Dockerfile, comments dropped and continued lines joined; an unknown keyword is kept."""
    found: list[Instruction] = []
    begun: tuple[int, str] | None = None
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if line.startswith("#") or not line:
            continue  # also between continued lines, as Docker does
        start, before = begun or (number, "")
        if line.endswith("\\"):
            begun = (start, before + line[:-1].rstrip() + " ")
            continue
        found.append(_instruction(start, before + line))
        begun = None
    if begun:
        found.append(_instruction(*begun))
    return found


def _instruction(number: int, line: str) -> Instruction:
    keyword, _, rest = line.partition(" ")
    rest = rest.strip()
    flags: dict[str, str] = {}
    while match := _FLAG.match(rest):
        flags[match[1]] = match[2]
        rest = rest[match.end() :]
    return Instruction(number, keyword.upper(), flags, rest)


def stages(found: list[Instruction]) -> list[list[Instruction]]:
    """The instructions of each stage, its FROM first; an ARG before the first FROM belongs to none."""
    parts: list[list[Instruction]] = []
    for instruction in found:
        if instruction.keyword == "FROM":
            parts.append([])
        if parts:
            parts[-1].append(instruction)
    return parts


def base_image(stage: list[Instruction], found: list[Instruction]) -> str:
    """The image that a stage stands on, with the defaults of the ARGs before the first FROM put in."""
    image = stage[0].text.split()[0]
    for instruction in found:
        if instruction.keyword == "FROM":
            break
        name, _, default = instruction.text.partition("=")
        if instruction.keyword == "ARG":
            image = image.replace("${" + name + "}", default)
    return image
