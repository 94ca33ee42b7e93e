"""Reading a Dockerfile and its faults, by docs.docker.com/reference/dockerfile. No engine is needed for it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

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


def dockerfile_faults(folder: Path) -> list[str]:
    """The faults of a build folder's Dockerfile: instructions, pins, user, health check, copied paths."""
    faults: list[str] = []
    found = instructions((folder / "Dockerfile").read_text(encoding="utf-8"))
    faults += [
        f"Dockerfile:{each.line}: {each.keyword} is no instruction" for each in found if each.keyword not in KEYWORDS
    ]
    parts = stages(found)
    if not parts:
        faults.append("Dockerfile has no FROM")
    for stage in parts:
        faults += _base_faults(stage, found) + _copy_faults(folder, stage)
    if parts:
        faults += _image_faults(parts[-1])
    return faults


def _base_faults(stage: list[Instruction], found: list[Instruction]) -> list[str]:
    image = base_image(stage, found)
    tag = image.rpartition("/")[2].partition(":")[2]
    pinned = "@sha256:" in image or (tag and not tag.startswith("latest"))
    return [] if pinned else [f"Dockerfile:{stage[0].line}: {image} has no version"]


def _copy_faults(folder: Path, stage: list[Instruction]) -> list[str]:
    """What is copied from the build folder must lie in it, and get past .dockerignore."""
    try:
        let_in = (folder / ".dockerignore").read_text(encoding="utf-8").split()
    except OSError:
        return [".dockerignore is missing"]
    faults = []
    for each in stage:
        if each.keyword not in {"COPY", "ADD"} or "from" in each.flags:
            continue
        for source in each.text.split()[:-1]:
            path = Path(source)
            if path.is_absolute() or ".." in path.parts or not (folder / path).exists():
                faults.append(f"Dockerfile:{each.line}: {source} is not in the build folder")
            elif f"!{path.parts[0]}" not in let_in:
                faults.append(f"Dockerfile:{each.line}: {source} is kept out by .dockerignore")
    return faults


def _image_faults(stage: list[Instruction]) -> list[str]:
    """How the image that is left runs."""
    last = {each.keyword: each for each in stage}
    order = [each.keyword for each in stage]
    faults = [
        f"Dockerfile has no {name} in its last stage" for name in ("USER", "ENTRYPOINT", "EXPOSE") if name not in last
    ]
    user = last["USER"].text.partition(":")[0] if "USER" in last else ""
    if user in {"root", "0"}:
        faults.append("Dockerfile: the server would run as root")
    elif user and not user.isdigit():
        faults.append(f"Dockerfile: the user {user} is no number, so that a cluster cannot tell that it is not root")
    if "RUN" in order and "USER" in order and order.index("USER") < len(order) - 1 - order[::-1].index("RUN"):
        faults.append("Dockerfile: USER stands before a RUN that needs its rights")
    for name in ("ENTRYPOINT", "CMD"):
        if name in last and not last[name].words():
            faults.append(f"Dockerfile:{last[name].line}: {name} is no JSON array, so that signals end in a shell")
    health = last.get("HEALTHCHECK")
    if health is None or not health.text.startswith("CMD "):
        faults.append("Dockerfile has no HEALTHCHECK in its last stage")
    port = last["EXPOSE"].text if "EXPOSE" in last else ""
    if port and not (port.isdigit() and 1024 < int(port) < 65536):
        faults.append(f"Dockerfile: the port {port} needs rights that the user has not")
    return faults
