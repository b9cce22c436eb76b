"""The turns of a chat as the front end keeps them: tokens and all, so that any engine can go on from them. No torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from lmplay.generate.template import PLAIN, Template
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

    Where the template says that answers are ended, `end_of_text`, the model's token for it, stands after each.
    """

    def __init__(self, template: Template = PLAIN, end_of_text: int | None = None) -> None:
        self.template = template
        self.end_of_text = end_of_text
        self.turns: list[Turn] = []

    @property
    def tokens(self) -> list[int]:
        """Of all turns, in order: the context of the next one."""
        end = [self.end_of_text] if self.template.ended and self.end_of_text is not None else []
        return [token for turn in self.turns for token in (*turn.prompt_tokens, *turn.tokens, *end)]

    def prompt_for(self, text: str) -> tuple[str, ...]:
        """What the model is given of a message, in parts that are encoded apart."""
        return self.template.prompt(text, first=not self.turns)

    def undo(self) -> Turn:
        """Take back the last turn. Raises `WrongUsageError` when there is none."""
        if not self.turns:
            raise WrongUsageError("there is no turn to take back yet")
        return self.turns.pop()

    def as_dict(self) -> dict[str, Any]:
        return {"template": self.template.form, "turns": [asdict(turn) for turn in self.turns]}

    def as_text(self) -> str:
        """The text that the model has seen and written."""
        between = "\n" if self.template.ended else ""  # in place of a token that is no text
        return between.join(turn.prompt + turn.answer for turn in self.turns) + "\n"
