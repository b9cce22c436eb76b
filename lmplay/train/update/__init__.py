"""One optimizer update: the objective over the pieces of a batch, clipping, the rule, and what surrounds them."""
