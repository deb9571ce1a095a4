"""Small chat templates with the shapes of those that models bring along, and what each must learn.

They were written for these tests; each repeats what matters about one family: where the system
prompt goes, what stands between the turns, and what is written differently once a turn is history.
"""

from collections.abc import Callable
from dataclasses import dataclass

PLAIN_LOOP = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
)
CHATML = PLAIN_LOOP + "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"

# A system block that is always there, header tokens, contents without outer white space.
LLAMA = (
    "{{ bos_token }}{% set rest = messages %}{% set system = '' %}"
    "{% if messages[0].role == 'system' %}{% set system = messages[0].content | trim %}"
    "{% set rest = messages[1:] %}{% endif %}"
    "<|start_header_id|>system<|end_header_id|>\n\nToday Date: 26 Jul 2024\n\n{{ system }}<|eot_id|>"
    "{% for m in rest %}"
    "<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}<|eot_id|>"
    "{% endfor %}{% if add_generation_prompt %}"
    "<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)

# The reasoning of earlier turns goes; the last turn gets an empty block where it has none.
QWEN = (
    "{% set ns = namespace(last=-1) %}{% for m in messages %}{% if m.role == 'user' %}"
    "{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
    "{% for m in messages %}{% if m.role != 'assistant' %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
    "{% else %}{% set content = m.content %}{% set thought = '' %}"
    "{% if '</think>' in content %}"
    "{% set thought = content.split('</think>')[0].split('<think>')[-1].strip('\n') %}"
    "{% set content = content.split('</think>')[-1].lstrip('\n') %}{% endif %}"
    "<|im_start|>assistant\n"
    "{% if loop.index0 > ns.last and (loop.last or thought) %}"
    "<think>\n{{ thought.strip('\n') }}\n</think>\n\n{{ content.lstrip('\n') }}"
    "{% else %}{{ content }}{% endif %}<|im_end|>\n"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n"
    "{% endif %}{% endif %}"
)

# Another name for the assistant, the system prompt inside the first question, strict alternation.
GEMMA = (
    "{{ bos_token }}{% set rest = messages %}{% set first = '' %}"
    "{% if messages[0].role == 'system' %}{% set first = messages[0].content + '\n\n' %}"
    "{% set rest = messages[1:] %}{% endif %}"
    "{% for m in rest %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant.') }}"
    "{% endif %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ first if loop.first else '' }}{{ m.content | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)

# No generation prompt, and the system prompt inside the last question, wherever that is.
MISTRAL = (
    "{{ bos_token }}{% set rest = messages %}{% set system = '' %}"
    "{% if messages[0].role == 'system' %}{% set system = messages[0].content + '\n\n' %}"
    "{% set rest = messages[1:] %}{% endif %}"
    "{% set ns = namespace(last=-1) %}{% for m in rest %}{% if m.role == 'user' %}"
    "{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
    "{% for m in rest %}{% if m.role == 'user' %}"
    "[INST] {{ system if loop.index0 == ns.last else '' }}{{ m.content }}[/INST]"
    "{% else %} {{ m.content | trim }}{{ eos_token }}{% endif %}{% endfor %}"
)

# The end of sequence behind a finished conversation, and behind nothing else.
PHI = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}"
)

# Rewrites the system block once there are several turns, and marks what it learns.
MARKED = (
    "<|im_start|>system\n{{ messages | length }} messages<|im_end|>\n{% for m in messages %}"
    "<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}"
    "{% generation %}{{ m.content }}<|im_end|>\n{% endgeneration %}"
    "{% else %}{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

TOOLS = (
    "{% if tools %}<|im_start|>system\n{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}"
    "<|im_end|>\n{% endif %}{% for m in messages %}"
    "{% if m.role == 'tool' %}{% if messages[loop.index0 - 1].role != 'tool' %}"
    "<|im_start|>user{% endif %}\n<tool_response>\n{{ m.content }}\n</tool_response>"
    "{% if loop.last or messages[loop.index0 + 1].role != 'tool' %}<|im_end|>\n{% endif %}"
    "{% else %}<|im_start|>{{ m.role }}\n{{ m.content if m.content else '' }}"
    "{% for call in m.tool_calls or [] %}<tool_call>\n"
    '{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}\n'
    "</tool_call>{% endfor %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def as_written(answer: str) -> str:
    return answer


@dataclass(frozen=True)
class Shape:
    """A template and what it writes for an answer."""

    template: str
    end: str
    content: Callable[[str], str] = as_written
    system: bool = True
    """Whether every answer of a conversation with a system prompt can be learnt."""

    def learnt(self, answer: str) -> str:
        return self.content(answer) + self.end


SHAPES = {
    "chatml": Shape(CHATML, "<|im_end|>"),
    "llama": Shape(LLAMA, "<|eot_id|>", str.strip),
    "qwen": Shape(QWEN, "<|im_end|>"),
    "gemma": Shape(GEMMA, "<end_of_turn>", str.strip),
    "mistral": Shape(MISTRAL, "</s>", lambda answer: f" {answer.strip()}", system=False),
    "phi": Shape(PHI, "<|end|>"),
    "marked": Shape(MARKED, "<|im_end|>"),
    "tools": Shape(TOOLS, "<|im_end|>"),
}
SPECIAL = [
    "<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>",
    "<|end_header_id|>", "<|eot_id|>", "<start_of_turn>", "<end_of_turn>", "[INST]", "[/INST]",
    "<|system|>", "<|user|>", "<|assistant|>", "<|end|>",
]  # fmt: skip
