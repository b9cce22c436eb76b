"""How a conversation is written as text: the one template that training on `messages` and chatting share.

GPT-2's vocabulary has no tokens for roles, so roles are words, and the end-of-text token ends each of the assistant's
turns:

    System: You are brief.

    User: What is 2 + 2?

    Assistant: 4<|endoftext|>User: And 3 + 3?

    Assistant: 6<|endoftext|>
"""

from __future__ import annotations

ROLE_NAMES = {"system": "System", "user": "User", "assistant": "Assistant"}
"""Role in the data -> its word in the text."""

ANSWER_PROMPT = "Assistant:"
"""What stands before each of the assistant's turns; a model is asked for an answer by ending the text with it."""

TEMPLATE_VERSION = 1
"""Part of the key of token caches: raised with any change of this template."""


def turn_text(role: str, content: str) -> tuple[str, str]:
    """(what is read, what is learned) of one turn. The end-of-text token after a learned part is the caller's to add.

    >>> turn_text("user", "What is 2 + 2?")
    ('User: What is 2 + 2?\\n\\n', '')
    >>> turn_text("assistant", "4")
    ('Assistant:', ' 4')

    Raises `KeyError` for a role that is not in `ROLE_NAMES`.
    """
    name = ROLE_NAMES[role]
    if role == "assistant":
        return ANSWER_PROMPT, f" {content.strip()}"
    return f"{name}: {content.strip()}\n\n", ""
