"""Stand-ins of the shape of each family's chat template, in our own words."""

LLAMA3 = """\
{{- bos_token }}<|start_header_id|>system<|end_header_id|>

Today: 24 Nov 2026<|eot_id|>
{%- for message in messages %}<|start_header_id|>{{ message.role }}<|end_header_id|>

{{ message.content | trim }}<|eot_id|>
{%- endfor %}
{%- if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>

{% endif %}"""

_TURNS = """\
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""

CHATML = "{{ '<|im_start|>system\\nBe kind.<|im_end|>\\n' }}" + _TURNS

# The last answer is written with an empty thought, which the generation prompt leaves out.
QWEN3 = """\
{%- for message in messages %}
{%- set thought = '<think>\\n\\n</think>\\n\\n' if message.role == 'assistant' and loop.last else '' %}
{{- '<|im_start|>' + message.role + '\\n' + thought + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""

GEMMA = """\
{{ bos_token }}
{%- for message in messages %}
{%- set role = 'model' if message.role == 'assistant' else message.role %}
{{- '<start_of_turn>' + role + '\\n' + message.content | trim + '<end_of_turn>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"""

MISTRAL = """\
{{ bos_token }}
{%- for message in messages %}
{%- if message.role == 'user' %}{{ '[INST] ' + message.content + '[/INST]' }}
{%- else %}{{ ' ' + message.content | trim + eos_token }}{% endif %}
{%- endfor %}"""

# A finished conversation ends in the end of the text, behind the end of the turn.
PHI = """\
{%- for message in messages %}{{ '<|' + message.role + '|>' + message.content + '<|end|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %}"""

OLMOE = """\
{{ bos_token }}
{%- for message in messages %}
{{- '<|' + message.role + '|>\\n' + message.content }}
{{- eos_token if message.role == 'assistant' else '' }}
{{- '' if message.role == 'assistant' and loop.last else '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"""
