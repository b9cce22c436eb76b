"""Speed and memory, measured on the machine at hand: paired runs, ratios, medians. `python -m benchmarks` runs all."""
