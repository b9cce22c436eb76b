"""The baseline with an auxiliary head that predicts the token after the next."""
