"""Several processes that train one run as one: who they are, what they share, and how the model is spread over them."""
