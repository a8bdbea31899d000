# SPDX-License-Identifier: MPL-2.0
"""The tokenizer: byte-level BPE as in Qwen2, learned from every text of a world."""

from dataclasses import dataclass, field

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>"]

# The chat template of the LLaVA-OneVision checkpoints on the hub.
CHAT_TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + ' '}}"
    "{# Render all images first #}{% for content in message['content'] | "
    "selectattr('type', 'equalto', 'image') %}{{ '<image>' }}{% endfor %}"
    "{# Render all video then #}{% for content in message['content'] | "
    "selectattr('type', 'equalto', 'video') %}{{ '<video>' }}{% endfor %}"
    "{# Render all text next #}{% if message['role'] != 'assistant' %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{{ '\\n' + content['text'] }}{% endfor %}{% else %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{% generation %}{{ '\\n' + content['text'] }}{% endgeneration %}{% endfor %}{% endif %}"
    "{{'<|im_end|>'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

# The turn around a video and a question, cut where the video and the question go.
BEFORE_VIDEO = "<|im_start|>user "
BEFORE_QUESTION = "\n"
AFTER_QUESTION = "<|im_end|><|im_start|>assistant\n"
END = "<|im_end|>"

# In the layout of the Qwen2.5-VL checkpoints, without their standing system message.
QWEN_TEMPLATE = """\
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' }}
{%- if message.content is string %}{{ message.content }}
{%- else %}
{%- for part in message.content %}
{%- if part.type == 'image' or 'image' in part %}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}
{%- elif part.type == 'video' or 'video' in part %}{{ '<|vision_start|><|video_pad|><|vision_end|>' }}
{%- elif 'text' in part %}{{ part.text }}
{%- endif %}
{%- endfor %}
{%- endif %}
{{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}
"""


@dataclass(frozen=True)
class Turn:
    """How a family writes one turn, cut where the video and the question go."""

    before_video: str
    # A token between the video and the question.
    mark: str
    before_question: str
    after_question: str
    end: str
    template: str
    special: list[str] = field(hash=False)


LLAVA = Turn(
    BEFORE_VIDEO, "<video>", BEFORE_QUESTION, AFTER_QUESTION, END, CHAT_TEMPLATE, SPECIAL
)
QWEN = Turn(
    "<|im_start|>user\n<|vision_start|>",
    "<|vision_end|>",
    "",
    "<|im_end|>\n<|im_start|>assistant\n",
    "<|im_end|>",
    QWEN_TEMPLATE,
    ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>",
     "<|image_pad|>", "<|video_pad|>"],
)  # fmt: skip

_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def empty_tokenizer(turn=LLAVA) -> PreTrainedTokenizerFast:
    """Knows nothing but the marks: for those who only want the tower."""
    vocabulary = {mark: n for n, mark in enumerate(turn.special)}
    return wrap(Tokenizer(models.BPE(vocab=vocabulary, merges=[])), turn)


def train_tokenizer(texts: list[str], vocabulary: int, turn=LLAVA) -> PreTrainedTokenizerFast:
    """At most `vocabulary` tokens, the 256 bytes and the marks included."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=turn.special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    chat = [turn.before_video + turn.before_question + turn.after_question] * 50
    tokenizer.train_from_iterator(texts + chat + [" " + text for text in texts], trainer)
    return wrap(tokenizer, turn)


def wrap(tokenizer: Tokenizer, turn=LLAVA) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=turn.end,
        pad_token="<|endoftext|>",
        additional_special_tokens=[mark for mark in turn.special[1:] if mark != turn.end],
        chat_template=turn.template,
    )
