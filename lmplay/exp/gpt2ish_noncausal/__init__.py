"""The baseline without its causal mask."""
