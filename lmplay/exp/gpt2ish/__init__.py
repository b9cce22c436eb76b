"""The baseline: GPT-2 in style, and the experiment to copy."""
