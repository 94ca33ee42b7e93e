"""A LitServe server around a bundle: server.py with a LitAPI that answers what is waiting in one run of the graph.

By LitServe's documents (lightning.ai/docs/litserve: LitAPI, batching). What is waiting is batched without a wait
(`batch_timeout` 0). LitServe fails a whole batch when one of its requests cannot be read, so the generated server
answers such a request with 422 by itself and lets its neighbours be.
"""

from __future__ import annotations

import ast
from pathlib import Path

from edgetune.export.layouts.embedded import (
    BUNDLE_FOLDER,
    answer_fields,
    bundle_faults,
    copy_bundle,
    example_object,
    floor_requirement,
    input_parts,
    missing_requirements,
    read_source,
    requirement_lines,
)
from edgetune.serve.bundle import Bundle

HELP = "LitServe server (server.py) around edgetune's predictor, batching what is waiting."
RUN = "pip install -r FOLDER/requirements.txt && python FOLDER/server.py --port 8000"

REQUIREMENT = "litserve==0.2.19"

_SERVER = '''\
"""Answers POST /predict {EXAMPLE} with {ANSWER}; GET /health when ready."""

import argparse
import signal
from pathlib import Path

import litserve
from edgetune.serve import EdgetuneError, load
from starlette.responses import JSONResponse

BUNDLE = Path(__file__).resolve().parent / "bundle"


class TextClassifier(litserve.LitAPI):
    def setup(self, device):
        self.predictor = load(BUNDLE)

    def decode_request(self, request):
        parts = self.predictor.codec.parts
        texts = [request.get(part) for part in parts] if isinstance(request, dict) else [None]
        return texts[0] if len(texts) == 1 else texts

    def batch(self, inputs):
        return list(inputs)

    def predict(self, texts):
        answers = [None] * len(texts)
        rows = []
        for row, text in enumerate(texts):
            try:
                self.predictor.encode([text])
                rows.append(row)
            except EdgetuneError as error:
                answers[row] = str(error)
        if rows:
            predictions = self.predictor.predict([texts[row] for row in rows])
            for row, prediction in zip(rows, predictions):
                answers[row] = prediction
        return answers

    def unbatch(self, output):
        return output

    def encode_response(self, answer):
        if isinstance(answer, str):
            return JSONResponse({"error": answer}, status_code=422)
        return self.predictor.head.as_json(answer, None)


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--host", default="127.0.0.1")
    options.add_argument("--port", type=int, default=8000)
    options.add_argument("--max-batch", type=int, default=32)
    options.add_argument("--workers", type=int, default=1)
    chosen = options.parse_args()
    api = TextClassifier(max_batch_size=chosen.max_batch, batch_timeout=0.0)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=chosen.workers)
    # LitServe stops its workers on Ctrl+C alone: SIGTERM would leave them behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    server.run(host=chosen.host, port=chosen.port, num_api_servers=1, generate_client_file=False)
'''


def write(bundle: Bundle, folder: Path) -> None:
    """Fill `folder` with server.py, requirements.txt and the bundle."""
    copy_bundle(bundle, folder)
    server = _SERVER.replace("{EXAMPLE}", example_object(input_parts(bundle)))
    server = server.replace("{ANSWER}", example_object(answer_fields(bundle)))
    (folder / "server.py").write_text(server, encoding="utf-8")
    requirements = f"{floor_requirement(bundle)}\n{REQUIREMENT}\n"
    (folder / "requirements.txt").write_text(requirements, encoding="utf-8")


def check(folder: Path) -> list[str]:
    """The faults of a folder: the LitAPI's methods, a server behind `__main__`, pinned packages, a whole bundle."""
    faults: list[str] = []
    server = read_source(folder / "server.py", faults)
    if server.body:
        faults += _server_faults(server)
    lines = requirement_lines(folder / "requirements.txt", faults)
    faults += missing_requirements(lines, ("litserve", "edgetune"))
    return faults + bundle_faults(folder)


def _server_faults(server: ast.Module) -> list[str]:
    apis = [
        node
        for node in server.body
        if isinstance(node, ast.ClassDef) and any(ast.unparse(base).endswith("LitAPI") for base in node.bases)
    ]
    if len(apis) != 1:
        return [f"server.py defines {len(apis)} classes of LitAPI instead of one"]
    methods = {node.name: len(node.args.args) for node in apis[0].body if isinstance(node, ast.FunctionDef)}
    needed = ("setup", "decode_request", "batch", "predict", "unbatch", "encode_response")
    faults = [f"{apis[0].name} has no method {name}(self, one argument)" for name in needed if methods.get(name) != 2]
    # LitServe starts its workers as processes that import server.py again.
    mains = [node for node in server.body if isinstance(node, ast.If) and "__main__" in ast.unparse(node.test)]
    if not any("LitServer" in ast.unparse(main) for main in mains):
        faults.append("server.py starts no LitServer behind __name__ == '__main__'")
    if f"'{BUNDLE_FOLDER}'" not in ast.unparse(server):
        faults.append(f"server.py does not open the folder {BUNDLE_FOLDER}")
    return faults
