"""peftune: parameter-efficient fine-tuning of pretrained language models that checks itself."""

__version__ = "0.1.0"
