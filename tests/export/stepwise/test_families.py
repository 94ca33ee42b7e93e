"""Every family in every way of being asked, by the runtime that ships: `make test-long` alone, since each is exported.

Tiny random models with noise in norms and biases, so that a lost one shows; 64 greedy tokens and the logits of every
step against `generate`, prompts of 3 to 945 tokens, windows of 16.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
import torch
import transformers

from edgetune.export.stepwise.graph import export_decoder, open_decoder
from edgetune.serve.stepwise.codec import TokenCodec
from edgetune.serve.stepwise.decoder import Decoder
from edgetune.serve.stepwise.generator import Generator
from edgetune.serve.stepwise.sampling import Sampling
from edgetune.serve.stepwise.scheduler import Scheduler

pytestmark = [pytest.mark.long, pytest.mark.slow]

CONTEXT_TOKENS, TOKENS = 1024, 64
LENGTHS = (3, 17, 40, 200, 945)
SECONDS = 600.0
TOLERANCE, TIE = 1e-3, 1e-4
_THETA = {"rope_theta": 10_000.0}
_USUAL: dict[str, Any] = {
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 96, "max_position_embeddings": CONTEXT_TOKENS, "initializer_range": 0.15, "bos_token_id": 1,
    "eos_token_id": 2, "pad_token_id": 0, "vocab_size": 288,
}  # fmt: skip
_YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256, **_THETA}
_LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128, **_THETA,
}  # fmt: skip
_LONGROPE = {"rope_type": "longrope", "short_factor": [1.0] * 8, "long_factor": [4.0] * 8, **_THETA}
_MIXTURE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
# By transformers' names of the configurations; what each says otherwise than _USUAL, None for what it does not know.
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama tied": ("LlamaConfig", {"tie_word_embeddings": True}),
    "llama biased": ("LlamaConfig", {"attention_bias": True, "mlp_bias": True}),
    "llama of one key-value head": ("LlamaConfig", {"num_key_value_heads": 1}),
    "llama3 rotation": ("LlamaConfig", {"rope_parameters": _LLAMA3}),
    "yarn rotation": ("LlamaConfig", {"rope_parameters": _YARN}),
    "linear rotation": ("LlamaConfig", {"rope_parameters": {"rope_type": "linear", "factor": 2.0, **_THETA}}),
    "dynamic rotation": ("LlamaConfig", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, **_THETA}}),
    "qwen2 with a window": ("Qwen2Config", {"sliding_window": 16, "use_sliding_window": True, "max_window_layers": 0}),
    "qwen3": ("Qwen3Config", {"head_dim": 16}),
    "mistral with a window": ("MistralConfig", {"sliding_window": 16}),
    "gemma": ("GemmaConfig", {"head_dim": 64, "num_key_value_heads": 1}),
    "gemma2": ("Gemma2Config", {"head_dim": 16, "sliding_window": 16}),
    "gemma3": ("Gemma3TextConfig", {"head_dim": 16, "sliding_window": 16, "sliding_window_pattern": 2}),
    "phi": ("PhiConfig", {"hidden_size": 128}),
    "phi3": ("Phi3Config", {"partial_rotary_factor": 0.5}),
    "phi3 longrope": ("Phi3Config", {"original_max_position_embeddings": 512, "rope_parameters": _LONGROPE}),
    "gpt2": ("GPT2Config", {"n_positions": CONTEXT_TOKENS}),
    "gpt_neox": ("GPTNeoXConfig", {"num_key_value_heads": None}),
    "gptj": ("GPTJConfig", {"n_positions": CONTEXT_TOKENS, "rotary_dim": 8, "n_inner": 96}),
    "olmo2": ("Olmo2Config", {}),
    "olmo3": ("Olmo3Config", {"sliding_window": 16}),
    "smollm3": ("SmolLM3Config", {}),
    "granite": ("GraniteConfig", {}),
    "stablelm": ("StableLmConfig", {}),
    "opt": ("OPTConfig", {"ffn_dim": 96, "word_embed_proj_dim": 64, "num_key_value_heads": None}),
    "bloom": ("BloomConfig", {"num_key_value_heads": None, "seq_length": CONTEXT_TOKENS}),
    "cohere2": ("Cohere2Config", {"sliding_window": 16}),
    "starcoder2": ("Starcoder2Config", {}),
    "mixtral": ("MixtralConfig", {"num_local_experts": 4}),
    "qwen2_moe": ("Qwen2MoeConfig", {**_MIXTURE, "shared_expert_intermediate_size": 32}),
    "gpt_oss": ("GptOssConfig", {"num_local_experts": 4, "head_dim": 16, "sliding_window": 16}),
}


class Family:
    """One model beside its graph in the runtime."""

    def __init__(self, name: str, folder: Any) -> None:
        from tests.export.conftest import _tokenizer

        kind, own = FAMILIES[name]
        settings = {key: value for key, value in {**_USUAL, **own}.items() if value is not None}
        with torch.random.fork_rng():
            torch.manual_seed(11)
            model = transformers.AutoModelForCausalLM.from_config(getattr(transformers, kind)(**settings))
            for weight in model.parameters():
                if weight.ndim == 1:  # norms and biases
                    weight.data += 0.1 * torch.randn_like(weight)
        model.save_pretrained(folder / "model")
        tokenizer = _tokenizer()
        tokenizer.model_max_length = CONTEXT_TOKENS
        tokenizer.save_pretrained(folder / "model")
        self.graph = export_decoder(folder / "model", folder / "graph")
        self.model = open_decoder(folder / "model")
        self.spec = msgspec.structs.replace(self.graph.spec, eos_ids=[])
        self.codec = TokenCodec(folder / "model" / "tokenizer.json")
        self.answers: dict[tuple[int, ...], tuple[list[int], Any]] = {}
        random = np.random.default_rng(5)
        lengths = [length for length in LENGTHS if length + TOKENS <= self.spec.context_tokens]
        self.prompts = [[int(token) for token in random.integers(3, 280, length)] for length in lengths]

    def decoder(self) -> Decoder:
        return Decoder(self.graph.path, self.spec, threads=1)

    def expected(self, prompt: list[int]) -> tuple[list[int], Any]:
        """The tokens of `generate` and the logits (tokens, vocabulary) of each step."""
        if tuple(prompt) not in self.answers:
            ids = torch.tensor([prompt])
            with torch.inference_mode():
                out = self.model.generate(
                    ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=TOKENS,
                    eos_token_id=None, pad_token_id=0, output_logits=True, return_dict_in_generate=True,
                )  # fmt: skip
            logits = torch.cat(out.logits).float().numpy()
            self.answers[tuple(prompt)] = (out.sequences[0, len(prompt) :].tolist(), logits)
        return self.answers[tuple(prompt)]

    def check(self, prompt: list[int], tokens: list[int], way: str) -> None:
        """The same tokens, but for the first place at which the model holds two for equally likely."""
        expected, logits = self.expected(prompt)
        for place, (one, other) in enumerate(zip(expected, tokens, strict=True)):
            if one != other:
                gap = abs(float(logits[place, one] - logits[place, other]))
                assert gap <= TIE * float(np.abs(logits[place]).max()), f"{len(prompt)} tokens {way}: from {place} on"
                return


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Family:
    """One family at a time: a model, its graph, and what `generate` gives."""
    return Family(request.param, tmp_path_factory.mktemp("family"))


@pytest.mark.parametrize("chunk", [1000, 128, 7])
def test_the_logits_of_every_step(family: Family, chunk: int) -> None:
    """A prompt in one piece, in pieces as they ship, and in odd ones; then the tokens of `generate` one by one."""
    decoder = family.decoder()
    for prompt in family.prompts:
        tokens, expected = family.expected(prompt)
        logits, cache = decoder.prefill([prompt], chunk=chunk)
        for place, token in enumerate(tokens):
            difference = float(np.abs(logits[0] - expected[place]).max())
            assert difference <= TOLERANCE * max(1.0, float(np.abs(expected[place]).max())), (len(prompt), place)
            logits, cache = decoder.run(np.array([[token]], dtype=np.int64), cache)


@pytest.mark.parametrize("batch_size", [1, 8])
def test_prompts_alone_and_left_padded(family: Family, batch_size: int) -> None:
    answers = family.decoder().generate_ids(family.prompts, Sampling(max_tokens=TOKENS), batch_size=batch_size)
    for prompt, tokens in zip(family.prompts, answers, strict=True):
        family.check(prompt, tokens, f"in batches of {batch_size}")


@pytest.mark.parametrize("prefix_bytes", [0, 2**30])
def test_requests_that_come_and_leave_at_different_times(family: Family, prefix_bytes: int) -> None:
    """Prompts that begin as earlier ones did, of answers that end at different times, with and without prefixes."""
    prompts = [*family.prompts, *([*prompt[:-1], 9] for prompt in family.prompts), *family.prompts]
    with (
        Generator(family.decoder(), family.codec, prefix_bytes=prefix_bytes) as generator,
        Scheduler(generator, rows=4) as scheduler,
    ):
        sizes = [TOKENS - 13 * (number % 4) for number in range(len(prompts))]
        handles = [
            scheduler.submit(prompt, Sampling(max_tokens=size)) for prompt, size in zip(prompts, sizes, strict=True)
        ]
        for prompt, size, handle in zip(prompts, sizes, handles, strict=True):
            answer = list(handle.result(seconds=SECONDS).token_ids)
            whole = [*answer, *family.expected(prompt)[0][size:]]
            family.check(prompt, whole, f"with {prefix_bytes} bytes of prefixes")
            assert len(answer) == size
