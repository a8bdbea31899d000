# SPDX-License-Identifier: MPL-2.0
"""A stand-in for Qwen2's tokenizer: the published sizes, ids and control tokens, other words.

It is a byte-level BPE of Qwen2's kind whose merges are made up: all pairs of printable ASCII
characters, then triples, until the vocabulary is full. So any text can be encoded, any id decoded
to something that can be printed, and the file is as large as the real one.
"""

import itertools

# Qwen2's split pattern.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Ordinary tokens of Qwen2; control tokens follow.
ORDINARY = 151_643

_TURNS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CONTROLS = {
    "llava_onevision": [*_TURNS, "<image>", "<video>"],
    "qwen2_5_vl": [
        *_TURNS, "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>",
        "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
        "<|image_pad|>", "<|video_pad|>",
    ],
}  # fmt: skip
CONTROLS |= dict.fromkeys(["qwen2_vl", "qwen3_vl"], CONTROLS["qwen2_5_vl"])
# What Qwen2.5's tokenizer has behind these, and Qwen3's behind that; InternVL's own stand behind either.
_QWEN_2_5 = [
    "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>",
    "<|repo_name|>", "<|file_sep|>",
]  # fmt: skip
_QWEN_3 = ["<tool_response>", "</tool_response>", "<think>", "</think>"]
_INTERNVL = [
    "<img>", "</img>", "<IMG_CONTEXT>", "<quad>", "</quad>", "<ref>", "</ref>", "<box>", "</box>", "<video>",
]  # fmt: skip


def controls(config):
    """The control tokens of a config's folder, in the order of their ids."""
    if config["model_type"] != "internvl":
        return CONTROLS[config["model_type"]]
    third = _QWEN_3 if config["text_config"]["model_type"] == "qwen3" else []
    found = [*CONTROLS["qwen2_5_vl"], *_QWEN_2_5, *third, *_INTERNVL]
    assert ORDINARY + found.index("<IMG_CONTEXT>") == config["image_token_id"]
    return found


def _alphabet():
    """GPT-2's printable stand-ins for the 256 bytes, in byte order."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    spare = (chr(0x100 + n) for n in itertools.count())
    return [chr(byte) if byte in plain else next(spare) for byte in range(256)]


def _merges(count):
    """`count` merges, every one of two tokens that exist by then."""
    letters = [_alphabet()[byte] for byte in range(0x20, 0x7F)]
    pairs = [(a, b) for a in letters for b in letters]
    triples = ((a + b, c) for a, b in pairs for c in letters)
    return list(itertools.islice(itertools.chain(pairs, triples), count))


def _control(id, content):
    flags = dict.fromkeys(["single_word", "lstrip", "rstrip", "normalized"], False)
    return {"id": id, "content": content, **flags, "special": True}


def files(texts, ordinary=ORDINARY):
    """`tokenizer.json` and `tokenizer_config.json` as dictionaries; `texts`: the control tokens."""
    merges = _merges(ordinary - 256)
    words = [*_alphabet(), *(a + b for a, b in merges)]
    controls = [_control(ordinary + i, text) for i, text in enumerate(texts)]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": SPLIT}, "behavior": "Isolated", "invert": False}
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": controls,
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]},
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
            "vocab": {word: id for id, word in enumerate(words)},
            "merges": [f"{a} {b}" for a, b in merges],
        },
    }
    config = {
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(c["id"]): {key: c[key] for key in c if key != "id"} for c in controls
        },
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": 32768,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
    return tokenizer, config
