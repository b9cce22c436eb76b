"""How a conversation is written as text: the one place that training and chatting take their templates from.

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

PAIR_TEMPLATE = "{prompt}\n{truth}"
"""How a prompt and its truth are joined unless the plan says so."""

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


def question_parts(template: str | None = None) -> tuple[str, ...]:
    """What stands before an answer, `{}` being the question: of conversations, or of pairs joined by `template`.

    Parts are encoded apart from each other, as in training: "\\n\\n" and "Assistant" have other tokens in one piece.

    >>> question_parts()
    ('User: {}\\n\\n', 'Assistant:')
    >>> question_parts("Q: {prompt} A: {truth}")
    ('Q: {} A: ',)
    """
    if template is None:
        return turn_text("user", "{}")[0], ANSWER_PROMPT
    return (template.removesuffix("{truth}").replace("{prompt}", "{}"),)
