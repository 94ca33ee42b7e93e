"""Answers with the bundle in this folder: python3 FOLDER "a text", or python3 FOLDER measure | verify | inspect ...

Needs Python alone. The wheels in wheels/ are compared with edge.json and unpacked there when it is first started; where
this folder cannot be written, into a folder of the user's cache, and wherever EDGETUNE_EDGE_LIB says.
"""

import hashlib
import json
import os
import platform
import runpy
import shutil
import sys
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
COMMANDS = ("predict", "verify", "measure", "inspect", "explain", "check")


def main() -> None:
    """Check the machine, unpack what is not yet, and hand the words on to edgetune."""
    listed = json.loads((HERE / "edge.json").read_text(encoding="utf-8"))
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if version != listed["python"] or sys.platform != listed["system"] or platform.machine() not in listed["machines"]:
        sys.exit(
            f"Error: this is Python {version} on {sys.platform} {platform.machine()}, and the folder was packed for "
            f"Python {listed['python']} on {listed['platform']}.\nTo do: start it with that Python, or pack it again: "
            "edgetune pack BUNDLE --layout edge --platform NAME --python VERSION"
        )
    library = unpacked(listed["wheels"])
    sys.path.insert(0, str(library))
    os.environ["PYTHONPATH"] = str(library)  # of the processes that prove and time
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    words = sys.argv[1:]
    command = words.pop(0) if words and words[0] in COMMANDS else "predict"
    sys.argv = ["edgetune", command, str(HERE / "bundle"), *words]
    runpy.run_module("edgetune", run_name="__main__", alter_sys=False)


def unpacked(wheels: dict[str, str]) -> Path:
    """The folder with the packages in it, whole or not there."""
    identity = hashlib.sha256(json.dumps(wheels, sort_keys=True).encode()).hexdigest()[:16]
    for place in places():
        if (place / identity).is_dir():
            return place / identity
    for place in places():
        part = place / f".{identity}.{os.getpid()}"
        try:
            part.mkdir(parents=True)
            for name, digest in wheels.items():
                unpack(HERE / "wheels" / name, digest, part)
            if not (place / identity).is_dir():
                part.rename(place / identity)
        except OSError:
            if (place / identity).is_dir():
                return place / identity
            continue
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return place / identity
    sys.exit("Error: the wheels cannot be unpacked anywhere.\nTo do: name a folder by EDGETUNE_EDGE_LIB")


def places() -> list[Path]:
    """Where packages may lie: where the user says, here, or among what the user's programs keep."""
    named = os.environ.get("EDGETUNE_EDGE_LIB")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgetune-edge"
    return [Path(named)] if named else [HERE / "wheels", cache]


def unpack(wheel: Path, digest: str, folder: Path) -> None:
    """Unpack one wheel whose bytes are those that were packed."""
    content = wheel.read_bytes()
    if hashlib.sha256(content).hexdigest() != digest:
        sys.exit(f"Error: {wheel} has other bytes than were packed.\nTo do: copy the folder again")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)


if __name__ == "__main__":
    main()
