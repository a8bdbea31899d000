# SPDX-License-Identifier: MPL-2.0
"""Writes a checkpoint of a published size with random weights, in the layout of the hub.

    python tools/real-size/write.py llava-onevision-qwen2-0.5b-ov-hf /tmp/ov-0.5b

config.json is the published one (configs/), shards and index, names, shapes and number format are
as published; the weights and the words of the tokenizer are made up. So the folder answers
nonsense, and everything else about it is real: how long it takes to load and to run, and how much
memory that needs. Weights are drawn and written piece by piece: 200 MB of memory for any size.
"""

import argparse
import json
import math
import pathlib
import shutil
import struct
import zlib

import numpy as np

import layout
import tokenizer

HERE = pathlib.Path(__file__).parent
PIECE = 1 << 22  # elements drawn at once


def shrink(config):
    """The same layout, a thousandth of the size: three layers, narrow, 512 tokens."""
    vision = config["vision_config"]
    if config["model_type"] == "llava_onevision":
        text, controls = config["text_config"], 5
        vision.update(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=70)
        config.update(image_grid_pinpoints=[[70, 70]])
        config.update(image_token_index=510, video_token_index=511)
    else:
        text, controls = config, 14
        vision.update(hidden_size=32, intermediate_size=48, depth=3, num_heads=2, out_hidden_size=64)
        vision.update(fullatt_block_indexes=[1])
        config["rope_scaling"].update(mrope_section=[2, 3, 3])
        for name in ["vision_start", "vision_end", "vision", "image", "video"]:
            config[f"{name}_token_id"] += 512 - controls - tokenizer.ORDINARY
    text.update(hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2)
    # More rows than tokens, as published.
    text.update(vocab_size=520, bos_token_id=512 - controls, eos_token_id=514 - controls)
    return 512 - controls


def values(name, shape, seed):
    """bf16 of one tensor in pieces. Layers keep the scale of what goes through them."""
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    count = math.prod(shape)
    scale, shift = 1 / math.sqrt(math.prod(shape[1:])), 0
    if "norm" in name or "ln_q" in name:
        scale, shift = 0.1, 0 if name.endswith("bias") else 1
    elif len(shape) == 1:
        scale = 0.02
    for start in range(0, count, PIECE):
        piece = rng.standard_normal(min(PIECE, count - start), dtype=np.float32) * np.float32(scale)
        piece += np.float32(shift)
        bits = piece.view(np.uint32)
        # Round to nearest, ties to even.
        yield ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")


def shards(tensors, limit):
    """Tensors in order, split where the next one would pass `limit` bytes."""
    parts, used = [[]], 0
    for name, shape in tensors:
        size = 2 * math.prod(shape)
        if parts[-1] and used + size > limit:
            parts, used = [*parts, []], 0
        parts[-1].append((name, shape))
        used += size
    return parts


def write_shard(path, tensors, seed, told):
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in tensors:
        end = offset + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, shape in tensors:
            for piece in values(name, shape, seed):
                file.write(piece.tobytes())
                told(piece.nbytes)
    return offset


def write_weights(out, tensors, limit, seed):
    parts = shards(tensors, limit)
    total, done, shown = 2 * sum(math.prod(shape) for _, shape in tensors), 0, -1

    def told(size):
        nonlocal done, shown
        done += size
        if done * 10 // total > shown:
            shown = done * 10 // total
            print(f"{shown * 10:4} % of {total / 1e9:.2f} GB", flush=True)

    if len(parts) == 1:
        write_shard(out / "model.safetensors", parts[0], seed, told)
        return
    places = {}
    for number, part in enumerate(parts, 1):
        file = f"model-{number:05}-of-{len(parts):05}.safetensors"
        write_shard(out / file, part, seed, told)
        places |= {name: file for name, _ in part}
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
    write_json(out / "model.safetensors.index.json", index)


def write_json(path, value, **style):
    path.write_text(json.dumps(value, **({"indent": 2} | style)) + "\n")


OV_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + ' ' }}"
    "{% for kind, mark in [('image', '<image>'), ('video', '<video>')] %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', kind) %}{{ mark }}{% endfor %}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ '\\n' + content['text'] }}"
    "{% endfor %}{{ '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
QWEN_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for content in message['content'] %}"
    "{% if content['type'] == 'image' %}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{% elif content['type'] == 'video' %}{{ '<|vision_start|><|video_pad|><|vision_end|>' }}"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}{% endif %}"
    "{{ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


QWEN3_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
    + QWEN_TEMPLATE.split("message['role'] + '\\n' }}", 1)[1]
)
INTERNVL_TEMPLATE = QWEN3_TEMPLATE.replace("<|vision_start|><|image_pad|><|vision_end|>", "<IMG_CONTEXT>\\n").replace(
    "<|vision_start|><|video_pad|><|vision_end|>", "<video>\\n"
)
TEMPLATES = {"llava_onevision": OV_TEMPLATE, "qwen3_vl": QWEN3_TEMPLATE, "internvl": INTERNVL_TEMPLATE}


def write_video_processor(out, vision):
    """What Qwen3-VL's folder has for videos beside its settings for still images."""
    processor = {
        "size": {"longest_edge": 25165824, "shortest_edge": 4096},
        "patch_size": vision["patch_size"],
        "temporal_patch_size": vision["temporal_patch_size"],
        "merge_size": vision["spatial_merge_size"],
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "processor_class": "Qwen3VLProcessor",
        "video_processor_type": "Qwen3VLVideoProcessor",
    }
    write_json(out / "video_preprocessor_config.json", processor)


def write_internvl_processor(out, config):
    """What InternVL's folders have; 3.5's for videos says what its class does, which the tower cannot take."""
    side, _ = config["vision_config"]["image_size"]
    colours = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    shared = {
        "crop_size": None,
        "do_center_crop": None,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "processor_class": "InternVLProcessor",
        "resample": 3,
        "rescale_factor": 0.00392156862745098,
        "size": {"height": side, "width": side},
    }
    own = {"crop_to_patches": False, "image_processor_type": "GotOcr2ImageProcessorFast", "max_patches": 12}
    write_json(out / "preprocessor_config.json", shared | colours | own)
    if config["text_config"]["model_type"] == "qwen3":
        clip = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
        own = {"size": {"height": 384, "width": 384}, "video_processor_type": "InternVLVideoProcessor"}
        write_json(out / "video_preprocessor_config.json", shared | clip | own)
    processor = {"image_seq_length": config["image_seq_length"], "processor_class": "InternVLProcessor"}
    write_json(out / "processor_config.json", processor)


def write_processor(out, config):
    if config["model_type"] == "internvl":
        return write_internvl_processor(out, config)
    if config["model_type"] == "llava_onevision":
        side = config["vision_config"]["image_size"]
        processor = {
            "do_convert_rgb": True,
            "do_normalize": True,
            "do_pad": True,
            "do_rescale": True,
            "do_resize": True,
            "image_grid_pinpoints": config["image_grid_pinpoints"],
            "image_mean": [0.5, 0.5, 0.5],
            "image_processor_type": "LlavaOnevisionImageProcessor",
            "image_std": [0.5, 0.5, 0.5],
            "processor_class": "LlavaOnevisionProcessor",
            "resample": 3,
            "rescale_factor": 0.00392156862745098,
            "size": {"height": side, "width": side},
        }
    else:
        vision = config["vision_config"]
        processor = {
            "min_pixels": 3136,
            "max_pixels": 12845056,
            "patch_size": vision["patch_size"],
            "temporal_patch_size": vision["temporal_patch_size"],
            "merge_size": vision["spatial_merge_size"],
            "image_mean": [0.48145466, 0.4578275, 0.40821073],
            "image_std": [0.26862954, 0.26130258, 0.27577711],
            "image_processor_type": "Qwen2VLImageProcessor",
            "processor_class": "Qwen2_5_VLProcessor",
        }
    write_json(out / "preprocessor_config.json", processor)


def main():
    configs = {path.stem: json.loads(path.read_text()) for path in (HERE / "configs").glob("*.json")}
    published = sorted(name for name, config in configs.items() if config["model_type"] in layout.FAMILIES)
    parser = argparse.ArgumentParser(description="Random weights at the size of a published checkpoint.")
    parser.add_argument("model", choices=published)
    parser.add_argument("out", type=pathlib.Path, help="folder to write; must not exist")
    parser.add_argument("--shard-gb", type=float, default=5.0, help="largest shard, in 10^9 bytes")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tower-layers", type=int, help="fewer layers of LLaVA-OneVision's tower; the decoder stays")
    parser.add_argument("--shrink", action="store_true", help="the same layout in a quarter of a megabyte")
    args = parser.parse_args()

    config = configs[args.model]
    if args.shrink and config["model_type"] not in ["llava_onevision", "qwen2_5_vl"]:
        parser.error("--shrink is for LLaVA-OneVision and Qwen2.5-VL")
    ordinary = shrink(config) if args.shrink else tokenizer.ORDINARY
    family = config["model_type"]
    if args.tower_layers:
        if family != "llava_onevision":
            parser.error("--tower-layers is for LLaVA-OneVision")
        config["vision_config"]["num_hidden_layers"] = args.tower_layers
    tensors = layout.tensors(config)
    size = 2 * sum(math.prod(shape) for _, shape in tensors)
    args.out.mkdir(parents=True)
    if shutil.disk_usage(args.out).free < size + (1 << 30):
        args.out.rmdir()
        parser.error(f"{args.out}: {size / 1e9:.1f} GB and one to spare do not fit there")

    write_json(args.out / "config.json", config)
    write_weights(args.out, tensors, args.shard_gb * 1e9, args.seed)
    words, settings = tokenizer.files(tokenizer.controls(config), ordinary)
    # Compact and unescaped, as the tokenizers library writes large ones.
    write_json(args.out / "tokenizer.json", words, indent=None, ensure_ascii=False, separators=(",", ":"))
    write_json(args.out / "tokenizer_config.json", settings)
    template = TEMPLATES.get(family, QWEN_TEMPLATE)
    write_json(args.out / "chat_template.json", {"chat_template": template})
    if family == "qwen3_vl":
        write_video_processor(args.out, config["vision_config"])
    write_processor(args.out, config)
    ends = {"bos_token_id": ordinary, "eos_token_id": [ordinary + 2, ordinary], "pad_token_id": ordinary}
    write_json(args.out / "generation_config.json", ends)
    print(f"{args.out}: {size // 2:,} parameters, {size / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
