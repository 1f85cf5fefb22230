"""Write a tiny random Qwen3 checkpoint and a byte-level tokenizer to the folder given.

35,008 parameters, 142 kB: small enough to make on the spot, so that the tests need neither a
download nor a binary in the repository. Run by an environment that has transformers; no torch.
"""

import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config

VOCABULARY = 512
HIDDEN = 32
INTERMEDIATE = 64
LAYERS = 2
HEADS = 4
KEY_VALUE_HEADS = 2
HEAD = 8
SCALE = 0.05
TEXT = ("the quick brown fox jumps over the lazy dog", "pack my box with five dozen liquor jugs")


def _tokenizer(folder: Path) -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(TEXT * 10, trainer)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    ).save_pretrained(folder)


def _config(folder: Path) -> None:
    Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=INTERMEDIATE,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KEY_VALUE_HEADS,
        head_dim=HEAD,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        eos_token_id=1,
        pad_token_id=0,
        bos_token_id=None,
        dtype="float32",
        architectures=["Qwen3ForCausalLM"],
    ).save_pretrained(folder)


def _weights(folder: Path) -> None:
    generator = np.random.default_rng(0)

    def random(rows: int, columns: int) -> np.ndarray:
        return (generator.standard_normal((rows, columns)) * SCALE).astype(np.float32)

    def ones(size: int) -> np.ndarray:
        return np.ones(size, np.float32)

    tensors = {"embed_tokens": random(VOCABULARY, HIDDEN), "norm": ones(HIDDEN)}
    for layer in range(LAYERS):
        prefix = f"layers.{layer}."
        tensors |= {
            prefix + "self_attn.q_proj": random(HEADS * HEAD, HIDDEN),
            prefix + "self_attn.k_proj": random(KEY_VALUE_HEADS * HEAD, HIDDEN),
            prefix + "self_attn.v_proj": random(KEY_VALUE_HEADS * HEAD, HIDDEN),
            prefix + "self_attn.o_proj": random(HIDDEN, HEADS * HEAD),
            prefix + "self_attn.q_norm": ones(HEAD),
            prefix + "self_attn.k_norm": ones(HEAD),
            prefix + "mlp.gate_proj": random(INTERMEDIATE, HIDDEN),
            prefix + "mlp.up_proj": random(INTERMEDIATE, HIDDEN),
            prefix + "mlp.down_proj": random(HIDDEN, INTERMEDIATE),
            prefix + "input_layernorm": ones(HIDDEN),
            prefix + "post_attention_layernorm": ones(HIDDEN),
        }
    named = {f"model.{name}.weight": tensor for name, tensor in tensors.items()}
    save_file(named, folder / "model.safetensors", metadata={"format": "pt"})


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    _tokenizer(target)
    _config(target)
    _weights(target)
