"""Makes each peer's own environment and, given a tuned model, each peer's artefact by that tool's own commands.

Run by edgetune's Python, for it needs click alone: `python benchmarks/peers/setup.py --envs DIR`, then with
`--base FOLDER --data FOLDER --models DIR` for the artefacts, or `--serving` for the servers of the load benchmark. What
is there already is left as it is.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import click

HERE = Path(__file__).parent
PEERS: dict[str, dict[str, object]] = json.loads((HERE / "peers.json").read_text(encoding="utf-8"))
# A folder of its own for each: what is written when all is done marks a finished environment.
MARK = "finished"
# The environments of the load benchmark; True where our own runtime is in it too, since that server carries it.
SERVERS = {"torch": True, "mlserver": True, "mlserver-huggingface": False}


def make_environment(requirements: Path, folder: Path, *others: str) -> None:
    """A virtual environment with what a requirements file pins, and `others` that pip installs without a pin.

    torch comes first and alone, by its exact version: left to the resolver, another one may bring gigabytes of CUDA.
    """
    mark = folder / MARK
    wanted = requirements.read_text(encoding="utf-8")
    if mark.is_file() and mark.read_text(encoding="utf-8") == wanted:
        return
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet"]
    for torch in (line for line in wanted.splitlines() if line.startswith("torch==")):
        subprocess.run([*pip, torch], check=True)
    subprocess.run([*pip, "--requirement", requirements, *others], check=True)
    mark.write_text(wanted, encoding="utf-8")


def make_server(name: str, folder: Path, with_ours: bool) -> None:
    """The environment of a server of the load benchmark."""
    others = [f"{HERE.parent.parent.resolve()}[cpu]"] if with_ours else []
    make_environment(HERE / "serving" / f"{name}.txt", folder, *others)
    # MLServer's Hugging Face runtime wants the exporters of optimum, which do not import beside this torch.
    if (alone := HERE / "serving" / f"{name}-alone.txt").is_file():
        pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-deps"]
        subprocess.run([*pip, "--requirement", alone], check=True)


def make_artefact(name: str, environment: Path, base: Path, data: Path, folder: Path) -> None:
    """Run a peer's export.py in its environment; the folder is made beside its place and renamed."""
    peer = PEERS[name]
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.parent.mkdir(parents=True, exist_ok=True)
    script = HERE / str(peer["environment"]) / "export.py"
    paths = ["--model", base, "--data", data / "dataset.json", "--out", part]
    quiet = {"ORT_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    arguments = [str(one) for one in peer["arguments"]]  # type: ignore[attr-defined]
    command = [environment / "bin" / "python", script.resolve(), *paths, *arguments]
    subprocess.run(command, check=True, env=os.environ | quiet)
    part.rename(folder)


@click.command()
@click.option("--envs", type=click.Path(path_type=Path), required=True, help="Where the environments are made.")
@click.option("--only", multiple=True, type=click.Choice(list(PEERS)), help="Peers to make; all when not said.")
@click.option("--base", type=click.Path(path_type=Path, exists=True), help="A tuned model, a standard folder.")
@click.option("--data", type=click.Path(path_type=Path, exists=True), help="The data folder of that build's work.")
@click.option("--models", type=click.Path(path_type=Path), help="Where the artefacts are made.")
@click.option("--serving", is_flag=True, help="Make the environments of the load benchmark, and nothing else.")
def main(
    envs: Path, only: tuple[str, ...], base: Path | None, data: Path | None, models: Path | None, serving: bool
) -> None:
    """Make the environments, and with --base, --data and --models the artefacts."""
    if serving:
        for name, with_ours in SERVERS.items():
            click.echo(f"environment serving-{name}")
            make_server(name, (envs / f"serving-{name}").resolve(), with_ours)
        return
    chosen = only or tuple(PEERS)
    for name in dict.fromkeys(str(PEERS[peer]["environment"]) for peer in chosen):
        click.echo(f"environment {name}")
        make_environment(HERE / name / "requirements.txt", (envs / name).resolve())
    if base is None or data is None or models is None:
        return
    for name in chosen:
        folder = (models / name).resolve()
        if not folder.exists():
            click.echo(f"artefact {name}")
            environment = (envs / str(PEERS[name]["environment"])).resolve()
            make_artefact(name, environment, base.resolve(), data.resolve(), folder)


if __name__ == "__main__":
    main()
