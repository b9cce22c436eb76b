"""GPT-2 as it was published, for its weights and as a second baseline."""
