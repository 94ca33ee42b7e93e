"""Tiny real checkpoints of every architecture, their tokenizers, and a data set, all made offline from a seed.

Two layers and 32 units wide, so the whole path from data to bundle runs on them in seconds; real classes, real
fast tokenizers and real folders, so that what breaks on a published checkpoint breaks here too.
"""

from __future__ import annotations

import os

# Several workers share the cores, and tiny models gain nothing by a second thread: one worker's threads would wait for
# another's. OMP_NUM_THREADS=2 in front of pytest asks for two.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Before torch and onnxruntime are imported anywhere: no network, no telemetry, no spinning threads.
os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_UPDATE_DOWNLOAD_COUNTS="0",
    ORT_DISABLE_TELEMETRY="1",
    OMP_WAIT_POLICY="passive",
)

import random
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from edgetune.compress.material import Material
    from edgetune.tune.data.dataset import Dataset

TINY_TOKENS = 96  # the longest input of every tiny checkpoint
_WIDTH = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    # Trained weights are larger than the usual 0.02: with it attention is flat and a lost mask goes unseen.
    "initializer_range": 0.15,
}
_BERT_SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_ROBERTA_SPECIALS = ["<s>", "<pad>", "</s>", "<unk>"]

KEYWORDS = {
    "card": ["card", "pin", "chip", "contactless"],
    "cash": ["cash", "banknote", "machine", "withdrawal"],
    "login": ["password", "login", "username", "fingerprint"],
    "transfer": ["transfer", "recipient", "standing", "reference"],
}
_FILLERS = (
    "i can not see why my the a was is it please help today again since yesterday where how do you think "
    "about this that new old very really twice after before abroad Monday evening café naïve 50 euros, urgent! "
    "and nobody answers on the phone so what should be done now"
).split()


@pytest.fixture(scope="session", autouse=True)
def hears_ctrl_c() -> Iterator[None]:
    """A shell starts what runs in its background deaf to Ctrl-C, and Python leaves it so; tests here press it."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def toy_sentences() -> list[tuple[str, str]]:
    """96 unlike sentences of 1 to 19 words with their label, which key words of its own tell."""
    chosen = random.Random(7)
    rows: dict[str, str] = {}
    for label, keywords in KEYWORDS.items():
        for number in range(24):
            words = chosen.choices(_FILLERS, k=0 if number == 0 else chosen.randint(1, 7) * (1 + number % 2))
            for place in range(1 + len(words) // 3):
                words.insert(chosen.randint(0, len(words)), keywords[(number + place) % 4])
            rows.setdefault(" ".join(words), label)
    return list(rows.items())


@pytest.fixture(scope="session")
def toy_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy sentences as a file with the columns text and label."""
    import csv

    path = tmp_path_factory.mktemp("toy") / "toy.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([("text", "label"), *toy_sentences()])
    return path


@pytest.fixture(scope="session")
def toy_dataset(toy_csv: Path) -> Callable[[], Dataset]:
    """Calling it gives the toy sentences, split: 4 labels, about 66 training, 15 validation and 15 test rows."""
    from edgetune.tune.data.dataset import DataRecipe, Dataset
    from edgetune.tune.tasks import TASKS

    dataset = Dataset.load(
        DataRecipe(path=str(toy_csv), text="text", label="label"), TASKS["text-classification"], seed=3
    )
    return lambda: dataset


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`tiny_base("bert")` is a checkpoint's folder, made at the first call; names as in `TINY_BASES` and bases.py."""
    from tests.bases import DECODERS, OTHERS

    known, made = {**TINY_BASES, **DECODERS, **OTHERS}, dict[str, Path]()

    def folder(name: str) -> Path:
        if name not in made:
            made[name] = known[name](tmp_path_factory.mktemp(name))
        return made[name]

    return folder


@pytest.fixture(scope="session")
def kind_bundle(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`kind_bundle("labels", "text-pair")` is a bundle of that head and codec: never to be changed in place."""
    made: dict[tuple[str, str], Path] = {}

    def bundle(kind: str, codec: str = "text") -> Path:
        if (kind, codec) not in made:
            from tests.golden.kinds import write_kind

            folder = tmp_path_factory.mktemp("kinds") / f"{kind}-{codec}"
            write_kind(folder, kind, codec)
            made[kind, codec] = folder
        return made[kind, codec]

    return bundle


@pytest.fixture(scope="session")
def static_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that answers from tables known by hand, without ONNX Runtime: never to be changed in place."""
    from tests.golden.tables import write_static

    return write_static(tmp_path_factory.mktemp("tables") / "static").folder


@pytest.fixture(scope="session")
def several_bundle(tiny_base: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of three tasks, built; its work folder lies beside it."""
    from tests.several_tasks import build_three

    return build_three(tiny_base("bert"), tmp_path_factory.mktemp("several"))


@pytest.fixture(scope="session")
def picture_base(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`picture_base("vit")` is a tiny random model's folder, made at the first call; names as in picture_bases.py."""
    import torch

    from tests.picture_bases import PICTURE_BASES

    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            with torch.random.fork_rng():
                torch.manual_seed(3)
                made[name] = PICTURE_BASES[name](tmp_path_factory.mktemp(name))
        return made[name]

    return folder


@pytest.fixture(scope="session")
def toy_pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three classes of 24 small pictures each, told apart by their colour; not to be changed in place."""
    from tests.picture_bases import write_pictures

    return write_pictures(tmp_path_factory.mktemp("pictures") / "colours")


@pytest.fixture(scope="session")
def picture_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that answers pictures by their mean colour, known by hand: never to be changed in place."""
    from tests.golden.pictures import write_picture_bundle

    return write_picture_bundle(tmp_path_factory.mktemp("pictures") / "colours").folder


@pytest.fixture(scope="session")
def cascade_bundle(static_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """These tables where their margin reaches a half, and the golden bundle behind them: not to be changed in place."""
    from edgetune.serve.bundle import Bundle
    from tests.golden.tables import write_cascade

    folder = tmp_path_factory.mktemp("tables") / "cascade"
    return write_cascade(folder, Bundle.open(static_bundle), 0.5).folder


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`shared_folder(name, make)` is a folder that `make(folder)` fills once for all workers; not to be changed."""
    from filelock import FileLock

    base = tmp_path_factory.getbasetemp()
    root = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def filled(name: str, make: Callable[[Path], object]) -> Path:
        folder = root / "shared" / name
        if not folder.is_dir():
            folder.parent.mkdir(exist_ok=True)
            with FileLock(f"{folder}.lock"):
                if not folder.is_dir():
                    part = folder.with_name(f"{name}.part")
                    shutil.rmtree(part, ignore_errors=True)  # of one that failed
                    part.mkdir()
                    make(part)
                    part.rename(folder)
        return folder

    return filled


@pytest.fixture(scope="session")
def tiny_material(
    tiny_base: Callable[[str], Path], toy_dataset: Callable[[], Dataset], shared_folder: Callable[..., Path]
) -> Callable[[str], tuple[Material, Path]]:
    """`tiny_material("bert")`: what schemes work with, for a tiny checkpoint with a probed head, and its graph."""
    made: dict[str, tuple[Material, Path]] = {}

    def material(name: str) -> tuple[Material, Path]:
        if name not in made:
            folder = shared_folder(f"material-{name}", lambda part: _probe(tiny_base(name), toy_dataset(), part))
            made[name] = _probed(folder, toy_dataset())
        return made[name]

    return material


def _probe(base: Path, dataset: Dataset, folder: Path) -> None:
    from edgetune.export.once.export import export
    from edgetune.tune.models.base import find_base
    from edgetune.tune.recipe import TuneRecipe
    from edgetune.tune.training.progress import Silent
    from edgetune.tune.tuning import tune

    recipe = TuneRecipe(method="probe", precision="fp32")
    where = {"task": "text-classification", "metric": "accuracy", "device": "cpu", "seed": 1}
    tuned = tune(dataset, find_base(str(base)), recipe, folder=folder / "tune", progress=Silent(), **where)
    export(tuned, dataset, "cpu", folder / "export", Silent())


def _probed(folder: Path, dataset: Dataset) -> tuple[Material, Path]:
    from edgetune.compress.material import Material
    from edgetune.export.once.graph import Graph
    from edgetune.tune.models.model import TunedModel
    from edgetune.tune.training.progress import Silent

    unlabeled = tuple(f"{text} thanks" for text in dataset.train.texts)
    tuned = TunedModel.open(folder / "tune")
    material = Material(tuned, dataset.train, dataset.validation, unlabeled, "cpu", "cpu", 0, Silent())
    return material, Graph.open(folder / "export").path


def _write(folder: Path, config: Any, tokenizer: Any) -> Path:
    """A folder as `save_pretrained` leaves it: a trunk with random weights and its tokenizer."""
    import torch
    from transformers import AutoModel

    with torch.random.fork_rng():
        torch.manual_seed(11)
        model = AutoModel.from_config(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _wordpiece(specials: list[str]) -> dict[str, int]:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=320, special_tokens=specials, show_progress=False)
    tokenizer.train_from_iterator([text for text, _ in toy_sentences()], trainer)
    return tokenizer.get_vocab()


def _byte_bpe(specials: list[str]) -> Any:
    """A `tokenizers` tokenizer of byte-level BPE."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=480,
        special_tokens=specials,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator([text for text, _ in toy_sentences()], trainer)
    return tokenizer


def _unigram(specials: list[str], unknown: str) -> list[tuple[str, float]]:
    """Pieces with their scores, the special ones first."""
    import json

    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=200, special_tokens=specials, unk_token=unknown, show_progress=False)
    texts = [text for text, _ in toy_sentences()]
    tokenizer.train_from_iterator([*texts, *(text.lower() for text in texts)], trainer)
    return [(piece, score) for piece, score in json.loads(tokenizer.to_str())["model"]["vocab"]]


def _bert(folder: Path) -> Path:
    from transformers import BertConfig, BertTokenizer

    vocab = _wordpiece(_BERT_SPECIALS)
    config = BertConfig(vocab_size=len(vocab), max_position_embeddings=TINY_TOKENS, **_WIDTH)
    return _write(folder, config, BertTokenizer(vocab=vocab, model_max_length=TINY_TOKENS))


def _distilbert(folder: Path) -> Path:
    from transformers import DistilBertConfig, DistilBertTokenizer

    vocab = _wordpiece(_BERT_SPECIALS)
    config = DistilBertConfig(
        vocab_size=len(vocab), max_position_embeddings=TINY_TOKENS, dim=32, n_layers=2, n_heads=2, hidden_dim=64,
        initializer_range=0.15,
    )  # fmt: skip
    tokenizer = DistilBertTokenizer(
        vocab=vocab, model_max_length=TINY_TOKENS, model_input_names=["input_ids", "attention_mask"]
    )
    return _write(folder, config, tokenizer)


def _electra(folder: Path) -> Path:
    from transformers import ElectraConfig, ElectraTokenizer

    vocab = _wordpiece(_BERT_SPECIALS)
    config = ElectraConfig(vocab_size=len(vocab), max_position_embeddings=TINY_TOKENS, embedding_size=16, **_WIDTH)
    return _write(folder, config, ElectraTokenizer(vocab=vocab, model_max_length=TINY_TOKENS))


def _mpnet(folder: Path) -> Path:
    from transformers import MPNetConfig, MPNetTokenizer

    vocab = _wordpiece(["<s>", "<pad>", "</s>", "[UNK]", "<mask>"])
    config = MPNetConfig(
        vocab_size=len(vocab), max_position_embeddings=TINY_TOKENS + 2, pad_token_id=1, bos_token_id=0,
        eos_token_id=2, **_WIDTH,
    )  # fmt: skip
    return _write(folder, config, MPNetTokenizer(vocab=vocab, model_max_length=TINY_TOKENS))


def _roberta(folder: Path) -> Path:
    import json

    from transformers import RobertaConfig, RobertaTokenizer

    bpe = json.loads(_byte_bpe([*_ROBERTA_SPECIALS, "<mask>"]).to_str())["model"]
    config = RobertaConfig(
        vocab_size=len(bpe["vocab"]), max_position_embeddings=TINY_TOKENS + 2, type_vocab_size=1, pad_token_id=1,
        bos_token_id=0, eos_token_id=2, **_WIDTH,
    )  # fmt: skip
    merges = [tuple(pair) for pair in bpe["merges"]]
    tokenizer = RobertaTokenizer(vocab=bpe["vocab"], merges=merges, model_max_length=TINY_TOKENS)
    return _write(folder, config, tokenizer)


def _modernbert(folder: Path) -> Path:
    from tokenizers.processors import TemplateProcessing
    from transformers import ModernBertConfig, PreTrainedTokenizerFast

    bpe = _byte_bpe(_BERT_SPECIALS)
    bpe.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    special = {"cls_token_id": 2, "bos_token_id": 2, "sep_token_id": 3, "eos_token_id": 3, "pad_token_id": 0}
    # Three layers: one looks at all tokens, two at a window that is shorter than the longest text.
    config = ModernBertConfig(
        vocab_size=bpe.get_vocab_size(), max_position_embeddings=TINY_TOKENS, local_attention=16,
        **{**_WIDTH, "num_hidden_layers": 3}, **special,
    )  # fmt: skip
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, model_max_length=TINY_TOKENS, cls_token="[CLS]", sep_token="[SEP]",
        unk_token="[UNK]", pad_token="[PAD]", mask_token="[MASK]",
        model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip
    return _write(folder, config, tokenizer)


def _albert(folder: Path) -> Path:
    from transformers import AlbertConfig, AlbertTokenizer

    vocab = _unigram(["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"], "<unk>")
    config = AlbertConfig(
        vocab_size=len(vocab), max_position_embeddings=TINY_TOKENS, embedding_size=16, pad_token_id=0,
        bos_token_id=2, eos_token_id=3, **_WIDTH,
    )  # fmt: skip
    return _write(folder, config, AlbertTokenizer(vocab=vocab, model_max_length=TINY_TOKENS))


def _deberta_v2(folder: Path) -> Path:
    from transformers import DebertaV2Config, DebertaV2Tokenizer

    vocab = _unigram(["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"], "[UNK]")
    # As the DeBERTa-v3 checkpoints are: relative positions alone, in buckets, their weights shared with the content's.
    config = DebertaV2Config(
        vocab_size=len(vocab), max_position_embeddings=TINY_TOKENS, type_vocab_size=0, relative_attention=True,
        position_buckets=16, norm_rel_ebd="layer_norm", share_att_key=True, pos_att_type="p2c|c2p",
        position_biased_input=False, **_WIDTH,
    )  # fmt: skip
    tokenizer = DebertaV2Tokenizer(vocab=vocab, unk_id=3, model_max_length=TINY_TOKENS)
    return _write(folder, config, tokenizer)


def _xlm_roberta(folder: Path) -> Path:
    from transformers import XLMRobertaConfig, XLMRobertaTokenizer

    vocab = [*_unigram(_ROBERTA_SPECIALS, "<unk>"), ("<mask>", 0.0)]
    config = XLMRobertaConfig(
        vocab_size=len(vocab), max_position_embeddings=TINY_TOKENS + 2, type_vocab_size=1, pad_token_id=1,
        bos_token_id=0, eos_token_id=2, **_WIDTH,
    )  # fmt: skip
    return _write(folder, config, XLMRobertaTokenizer(vocab=vocab, model_max_length=TINY_TOKENS))


TINY_BASES: dict[str, Callable[[Path], Path]] = {
    "bert": _bert,
    "distilbert": _distilbert,
    "roberta": _roberta,
    "electra": _electra,
    "albert": _albert,
    "mpnet": _mpnet,
    "deberta_v2": _deberta_v2,
    "modernbert": _modernbert,
    "xlm_roberta": _xlm_roberta,
}


_LANGUAGE_WORDS = "the a cat dog bird fish sees eats likes finds red blue old small . ?".split()


@pytest.fixture(scope="session")
def language_base(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`language_base()` is the folder of a llama of two layers, 64 wide; `kind` may be gpt2, `tied` False."""
    made: dict[tuple[str, bool], Path] = {}

    def folder(kind: str = "llama", tied: bool = True) -> Path:
        if (kind, tied) not in made:
            made[kind, tied] = _write_language_base(tmp_path_factory.mktemp(kind), kind, tied)
        return made[kind, tied]

    return folder


def _write_language_base(folder: Path, kind: str, tied: bool) -> Path:
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, PreTrainedTokenizerFast

    vocabulary = {word: number for number, word in enumerate(["<pad>", "<s>", "</s>", "<unk>", *_LANGUAGE_WORDS])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": tied}
    config = (
        LlamaConfig(
            vocab_size=64, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.1, **special,
        )
        if kind == "llama"
        else GPT2Config(vocab_size=64, n_embd=64, n_layer=2, n_head=4, n_positions=64, initializer_range=0.1, **special)
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>",
        model_max_length=64, chat_template="{% for m in messages %}{{ m.content }} {% endfor %}",
    ).save_pretrained(folder)  # fmt: skip
    return folder
