"""Talking to models: conversations and where they are kept, the engines that answer, one or two of them at a time."""
