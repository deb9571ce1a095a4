"""Models, adapters and checkpoints of other people are data: looked at before anything reads them.

`files` says which files a folder may have, `json_file` and `tensor_header` read what can be read without
running anything, `patterns` tries regular expressions where they do no harm, `model` and `adapter` say
what a base model's and an adapter's folder may ask for. Nothing here needs torch.
"""
