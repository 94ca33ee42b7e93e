"""A Docker build folder: an image that holds the floor, the server and one bundle, and proves the bundle while built.

By docs.docker.com/reference/dockerfile and its best practices: a stage for the packages, pinned; exec forms, so that
SIGTERM reaches the server; a user without rights; a health check that asks whether the bundle is ready. The packages
are all listed and installed with --no-deps: what `tokenizers` and `onnxruntime` declare beside is for downloading
models and for tools that convert them (huggingface-hub, hf-xet, sympy, protobuf ...), and nothing here imports it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from edgetune import __version__
from edgetune.export.layouts import model_name
from edgetune.export.layouts.embedded import (
    bundle_faults,
    copy_bundle,
    missing_requirements,
    requirement_lines,
    requirement_names,
)
from edgetune.serve.bundle import Bundle
from edgetune.serve.errors import BundleError

HELP = "Docker build folder: the floor, the server and the bundle, nothing else; non-root, with a health check."
RUN = (
    "docker build -t edgetune-bundle FOLDER && docker run -p 8000:8000 "
    '-v "$PWD/keys:/run/secrets/edgetune-keys:ro" edgetune-bundle   # keys: a file of API keys'
)

# What the image is made of beside the bundle's own versions of numpy, onnxruntime and tokenizers.
PINNED = {
    "anyio": "4.16.0",
    "click": "8.5.1",
    "h11": "0.16.0",
    "httptools": "0.9.0",
    "idna": "3.20",
    "msgspec": "0.22.0",
    "numpy": "2.4.6",
    "onnxruntime": "1.31.1",
    "prometheus-client": "0.26.0",
    "starlette": "1.10.0",
    "tokenizers": "0.23.3",
    "typing-extensions": "4.16.0",
    "uvicorn": "0.54.0",
    "uvloop": "0.23.0",
}
HEAVY = ("torch", "transformers", "onnx", "pandas", "scipy", "scikit-learn", "huggingface-hub", "datasets", "peft")

_PORT = 8000
_DOCKERFILE = """\
# Pin the image itself with --build-arg PYTHON=python@sha256:...
ARG PYTHON=python:{python}-slim-bookworm

FROM ${{PYTHON}} AS packages
COPY wheels/ /wheels/
COPY requirements.txt /requirements.txt
RUN pip install --no-cache-dir --no-deps --disable-pip-version-check \\
    --prefix=/packages --find-links=/wheels --requirement=/requirements.txt

FROM ${{PYTHON}}
LABEL org.opencontainers.image.title={title} \\
    org.opencontainers.image.version={version}
COPY --from=packages /packages /usr/local
COPY bundle/ /srv/bundle/
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 ORT_DISABLE_TELEMETRY=1
# The image is not built unless the bundle gives its golden answers in it.
RUN ["edgetune", "verify", "/srv/bundle"]
USER 10001:10001
EXPOSE {port}
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD {health}
ENTRYPOINT {entrypoint}
# What follows the image's name in `docker run` takes the place of this.
CMD ["--api-key-file", "/run/secrets/edgetune-keys"]
"""
_WHEELS_NOTE = """\
pip looks into this folder as well as into the package index: put the wheel of edgetune here where the index does not
have this version (python -m build --wheel -o FOLDER/wheels), and all wheels where the build has no network.
"""


def write(bundle: Bundle, folder: Path) -> None:
    """Fill `folder` with Dockerfile, .dockerignore, requirements.txt, wheels/ and the bundle.

    Raises:
        BundleError: the bundle was built for a GPU, which this image has no libraries for.
    """
    if bundle.manifest.provider != "cpu":
        raise BundleError(
            f"The bundle {bundle.folder} was built for {bundle.manifest.provider}.",
            expected="a bundle for cpu: the image brings no GPU libraries",
            action="pack it with --layout triton, whose image has them, or build the bundle with --device cpu",
        )
    copy_bundle(bundle, folder)
    (folder / "wheels").mkdir()
    (folder / "wheels" / "README.txt").write_text(_WHEELS_NOTE, encoding="utf-8")
    (folder / "requirements.txt").write_text(_requirements(bundle), encoding="utf-8")
    (folder / ".dockerignore").write_text("*\n!requirements.txt\n!wheels\n!bundle\n", encoding="utf-8")
    (folder / "Dockerfile").write_text(_dockerfile(bundle), encoding="utf-8")


def _requirements(bundle: Bundle) -> str:
    """Every package of the image; numpy, onnxruntime and tokenizers as the bundle was proven with."""
    proven = dict(bundle.manifest.versions)
    proven.setdefault("onnxruntime", proven.get("onnxruntime-gpu", PINNED["onnxruntime"]))
    versions = {name: proven.get(name, version) for name, version in PINNED.items()} | {"edgetune": __version__}
    return "".join(f"{name}=={version}\n" for name, version in sorted(versions.items()))


def _dockerfile(bundle: Bundle) -> str:
    name = model_name(bundle)
    ready = f"http://127.0.0.1:{_PORT}/v2/health/ready"
    health = ["python", "-c", f"import urllib.request; urllib.request.urlopen('{ready}', timeout=3)"]
    served = ["edgetune", "serve", f"{name}=/srv/bundle", "--host", "0.0.0.0", "--port", str(_PORT)]
    return _DOCKERFILE.format(
        python=f"{sys.version_info.major}.{sys.version_info.minor}",
        title=json.dumps(name),
        version=json.dumps(bundle.manifest.created),
        port=_PORT,
        health=json.dumps(health),
        entrypoint=json.dumps(served),
    )


def check(folder: Path) -> list[str]:
    """The faults that a bundle can bring: packages, and the bundle itself; the Dockerfile follows from neither."""
    faults = [] if (folder / "Dockerfile").is_file() else ["Dockerfile is missing"]
    lines = requirement_lines(folder / "requirements.txt", faults)
    names = requirement_names(lines)
    faults += [f"requirements.txt brings {name}, which the floor does not need" for name in HEAVY if name in names]
    faults += missing_requirements(lines, (*PINNED, "edgetune"))  # each, since they are installed without dependencies
    return faults + bundle_faults(folder)
