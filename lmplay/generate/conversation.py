"""The turns of a chat as the front end keeps them: tokens and all, so that any engine can go on from them. No torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from lmplay.utils.errors import WrongUsageError


@dataclass(frozen=True, kw_only=True)
class Turn:
    text: str
    """What the person typed."""
    prompt: str
    """What the model was given of it."""
    prompt_tokens: list[int]
    answer: str
    tokens: list[int]
    stopped_by: str
    seed: int


class Conversation:
    """A list of turns. A language model knows no turns: it continues one text, so the template is what marks them.

    `{}` in the template stands for what was typed. A turn after the first begins on a new line.
    """

    def __init__(self, template: str = "{}") -> None:
        if "{}" not in template:
            raise WrongUsageError(f"the template {template!r} has no {{}}, which stands for what is typed")
        self.template = template
        self.turns: list[Turn] = []

    @property
    def tokens(self) -> list[int]:
        """Of all turns, in order: the context of the next one."""
        return [token for turn in self.turns for token in (*turn.prompt_tokens, *turn.tokens)]

    def prompt_for(self, text: str) -> str:
        return ("\n" if self.turns else "") + self.template.replace("{}", text)

    def undo(self) -> Turn:
        """Take back the last turn. Raises `WrongUsageError` when there is none."""
        if not self.turns:
            raise WrongUsageError("there is no turn to take back yet")
        return self.turns.pop()

    def as_dict(self) -> dict[str, Any]:
        return {"template": self.template, "turns": [asdict(turn) for turn in self.turns]}

    def as_text(self) -> str:
        """The text that the model has seen and written."""
        return "".join(turn.prompt + turn.answer for turn in self.turns) + "\n"
