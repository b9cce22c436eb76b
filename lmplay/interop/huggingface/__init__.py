"""Checkpoints to and from the folders of Hugging Face's transformers. Called by `lmplay export` and `lmplay import`.

Only GPT-2 is spoken: what computes as GPT-2 does can be written, and what is GPT-2 can be read. transformers itself is
not needed, neither to write nor to read.
"""
