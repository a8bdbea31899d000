# SPDX-License-Identifier: MPL-2.0
"""Names and shapes of a published checkpoint's tensors, in file order, from its config.json."""


def _linear(name, outputs, inputs, bias=True):
    yield f"{name}.weight", (outputs, inputs)
    if bias:
        yield f"{name}.bias", (outputs,)


def _norm(name, width, bias=False):
    yield f"{name}.weight", (width,)
    if bias:
        yield f"{name}.bias", (width,)


def _decoder(prefix, text):
    """Everything of a Qwen2 or Qwen3 decoder but the output head."""
    hidden, inner = text["hidden_size"], text["intermediate_size"]
    heads, third = text["num_attention_heads"], "qwen3" in text["model_type"]
    head = text.get("head_dim", hidden // heads)
    kv = head * text["num_key_value_heads"]
    yield f"{prefix}.embed_tokens.weight", (text["vocab_size"], hidden)
    for i in range(text["num_hidden_layers"]):
        layer = f"{prefix}.layers.{i}"
        yield from _norm(f"{layer}.input_layernorm", hidden)
        yield from _linear(f"{layer}.self_attn.q_proj", head * heads, hidden, bias=not third)
        yield from _linear(f"{layer}.self_attn.k_proj", kv, hidden, bias=not third)
        yield from _linear(f"{layer}.self_attn.v_proj", kv, hidden, bias=not third)
        yield from _linear(f"{layer}.self_attn.o_proj", hidden, head * heads, bias=False)
        if third:
            yield from _norm(f"{layer}.self_attn.q_norm", head)
            yield from _norm(f"{layer}.self_attn.k_norm", head)
        yield from _norm(f"{layer}.post_attention_layernorm", hidden)
        yield from _linear(f"{layer}.mlp.gate_proj", inner, hidden, bias=False)
        yield from _linear(f"{layer}.mlp.up_proj", inner, hidden, bias=False)
        yield from _linear(f"{layer}.mlp.down_proj", hidden, inner, bias=False)
    yield from _norm(f"{prefix}.norm", hidden)


def _siglip(prefix, vision):
    width, inner, patch = vision["hidden_size"], vision["intermediate_size"], vision["patch_size"]
    yield f"{prefix}.embeddings.patch_embedding.weight", (width, 3, patch, patch)
    yield f"{prefix}.embeddings.patch_embedding.bias", (width,)
    yield f"{prefix}.embeddings.position_embedding.weight", ((vision["image_size"] // patch) ** 2, width)
    for i in range(vision["num_hidden_layers"]):
        layer = f"{prefix}.encoder.layers.{i}"
        yield from _norm(f"{layer}.layer_norm1", width, bias=True)
        for part in ["q_proj", "k_proj", "v_proj", "out_proj"]:
            yield from _linear(f"{layer}.self_attn.{part}", width, width)
        yield from _norm(f"{layer}.layer_norm2", width, bias=True)
        yield from _linear(f"{layer}.mlp.fc1", inner, width)
        yield from _linear(f"{layer}.mlp.fc2", width, inner)
    yield from _norm(f"{prefix}.post_layernorm", width, bias=True)


def _llava_onevision(config):
    text, vision = config["text_config"], config["vision_config"]
    hidden = text["hidden_size"]
    yield "image_newline", (hidden,)
    yield from _decoder("language_model.model", text)
    if not text["tie_word_embeddings"]:
        yield "language_model.lm_head.weight", (text["vocab_size"], hidden)
    yield from _linear("multi_modal_projector.linear_1", hidden, vision["hidden_size"])
    yield from _linear("multi_modal_projector.linear_2", hidden, hidden)
    yield from _siglip("vision_tower.vision_model", vision)


def _qwen2_5_vl(config):
    vision, hidden = config["vision_config"], config["hidden_size"]
    width, inner, patch = vision["hidden_size"], vision["intermediate_size"], vision["patch_size"]
    yield "visual.patch_embed.proj.weight", (width, 3, vision["temporal_patch_size"], patch, patch)
    for i in range(vision["depth"]):
        block = f"visual.blocks.{i}"
        yield from _norm(f"{block}.norm1", width)
        yield from _norm(f"{block}.norm2", width)
        yield from _linear(f"{block}.attn.qkv", 3 * width, width)
        yield from _linear(f"{block}.attn.proj", width, width)
        yield from _linear(f"{block}.mlp.gate_proj", inner, width)
        yield from _linear(f"{block}.mlp.up_proj", inner, width)
        yield from _linear(f"{block}.mlp.down_proj", width, inner)
    merged = width * vision["spatial_merge_size"] ** 2
    yield from _norm("visual.merger.ln_q", width)
    yield from _linear("visual.merger.mlp.0", merged, merged)
    yield from _linear("visual.merger.mlp.2", vision["out_hidden_size"], merged)
    yield from _decoder("model", config)
    if not config["tie_word_embeddings"]:
        yield "lm_head.weight", (config["vocab_size"], hidden)


def _blocks(prefix, depth, width, inner, names):
    """Layers of Qwen2-VL's and Qwen3-VL's towers."""
    for i in range(depth):
        block = f"{prefix}.blocks.{i}"
        yield from _norm(f"{block}.norm1", width, bias=True)
        yield from _norm(f"{block}.norm2", width, bias=True)
        yield from _linear(f"{block}.attn.qkv", 3 * width, width)
        yield from _linear(f"{block}.attn.proj", width, width)
        yield from _linear(f"{block}.mlp.{names[0]}", inner, width)
        yield from _linear(f"{block}.mlp.{names[1]}", width, inner)


def _qwen2_vl(config):
    vision, hidden = config["vision_config"], config["hidden_size"]
    width, patch = vision["embed_dim"], vision["patch_size"]
    yield "visual.patch_embed.proj.weight", (width, 3, vision["temporal_patch_size"], patch, patch)
    yield from _blocks("visual", vision["depth"], width, width * vision["mlp_ratio"], ["fc1", "fc2"])
    merged = width * vision["spatial_merge_size"] ** 2
    yield from _norm("visual.merger.ln_q", width, bias=True)
    yield from _linear("visual.merger.mlp.0", merged, merged)
    yield from _linear("visual.merger.mlp.2", hidden, merged)
    yield from _decoder("model", config)
    if not config["tie_word_embeddings"]:
        yield "lm_head.weight", (config["vocab_size"], hidden)


def _qwen3_vl(config):
    text, vision = config["text_config"], config["vision_config"]
    width, patch, prefix = vision["hidden_size"], vision["patch_size"], "model.visual"
    yield f"{prefix}.patch_embed.proj.weight", (width, 3, vision["temporal_patch_size"], patch, patch)
    yield f"{prefix}.patch_embed.proj.bias", (width,)
    yield f"{prefix}.pos_embed.weight", (vision["num_position_embeddings"], width)
    names = ["linear_fc1", "linear_fc2"]
    yield from _blocks(prefix, vision["depth"], width, vision["intermediate_size"], names)
    merged = width * vision["spatial_merge_size"] ** 2
    deep = [f"{prefix}.deepstack_merger_list.{i}" for i in range(len(vision["deepstack_visual_indexes"]))]
    for merger in [f"{prefix}.merger", *deep]:
        yield from _norm(f"{merger}.norm", merged if merger in deep else width, bias=True)
        yield from _linear(f"{merger}.{names[0]}", merged, merged)
        yield from _linear(f"{merger}.{names[1]}", vision["out_hidden_size"], merged)
    yield from _decoder("model.language_model", text)
    if not config["tie_word_embeddings"]:
        yield "lm_head.weight", (text["vocab_size"], text["hidden_size"])


def _internvl(config):
    text, vision = config["text_config"], config["vision_config"]
    hidden, width, inner = text["hidden_size"], vision["hidden_size"], vision["intermediate_size"]
    (side, _), (patch, _) = vision["image_size"], vision["patch_size"]
    merged = int(width / config["downsample_ratio"] ** 2)
    yield from _decoder("language_model.model", text)
    if not config["tie_word_embeddings"]:
        yield "language_model.lm_head.weight", (text["vocab_size"], hidden)
    yield from _norm("multi_modal_projector.layer_norm", merged, bias=True)
    yield from _linear("multi_modal_projector.linear_1", hidden, merged)
    yield from _linear("multi_modal_projector.linear_2", hidden, hidden)
    yield "vision_tower.embeddings.cls_token", (1, 1, width)
    yield "vision_tower.embeddings.patch_embeddings.projection.weight", (width, 3, patch, patch)
    yield "vision_tower.embeddings.patch_embeddings.projection.bias", (width,)
    yield "vision_tower.embeddings.position_embeddings", (1, 1 + (side // patch) ** 2, width)
    for i in range(vision["num_hidden_layers"]):
        layer = f"vision_tower.encoder.layer.{i}"
        for part in ["q_proj", "k_proj", "v_proj"]:
            yield from _linear(f"{layer}.attention.{part}", width, width, vision["attention_bias"])
        yield from _linear(f"{layer}.attention.projection_layer", width, width)
        yield f"{layer}.lambda_1", (width,)
        yield f"{layer}.lambda_2", (width,)
        yield from _norm(f"{layer}.layernorm_after", width, bias=True)
        yield from _norm(f"{layer}.layernorm_before", width, bias=True)
        yield from _linear(f"{layer}.mlp.fc1", inner, width)
        yield from _linear(f"{layer}.mlp.fc2", width, inner)


FAMILIES = {
    "internvl": _internvl,
    "llava_onevision": _llava_onevision,
    "qwen2_vl": _qwen2_vl,
    "qwen2_5_vl": _qwen2_5_vl,
    "qwen3_vl": _qwen3_vl,
}


def tensors(config):
    """(name, shape) of every tensor."""
    return list(FAMILIES[config["model_type"]](config))
