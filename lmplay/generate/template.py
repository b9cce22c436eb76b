"""What a model is given of a message in a chat, and which form of it a checkpoint was trained with. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmplay.runs import Run, is_run
from lmplay.utils.conversation import PAIR_TEMPLATE, question_parts
from lmplay.utils.errors import WrongUsageError


@dataclass(frozen=True)
class Template:
    """`parts` stand before an answer, `{}` in them is the message; they are encoded apart.

    `ended`: as in training, an end-of-text token follows each answer. Else each turn but the first begins a new line.
    """

    parts: tuple[str, ...]
    ended: bool = False

    @property
    def form(self) -> str:
        return "".join(self.parts)

    def prompt(self, text: str, *, first: bool) -> tuple[str, ...]:
        """The parts with the message in them."""
        if self.ended:
            return tuple(part.replace("{}", text.strip()) for part in self.parts)
        before, *others = (part.replace("{}", text) for part in self.parts)
        return (before if first else f"\n{before}", *others)


PLAIN = Template(("{}",))
MESSAGES = Template(question_parts(), ended=True)
NAMED = {"plain": PLAIN, "messages": MESSAGES}


def named_template(text: str) -> Template | None:
    r"""`--template`: a name, or a form of one's own in which `\n` is a line break; None for `auto`."""
    if text == "auto":
        return None
    if text in NAMED:
        return NAMED[text]
    if "{}" not in text:
        raise WrongUsageError(
            f"the template {text!r} has no {{}}, which stands for what is typed; or use auto, {', '.join(NAMED)}"
        )
    return Template((text.replace("\\n", "\n"),))


def taught_template(checkpoint: str | Path) -> Template:
    """The template of the last stage that the checkpoint was trained in and that has one; `PLAIN` where none has.

    Conversations go before pairs of prompt and truth. A checkpoint outside of its run does not tell.
    """
    folder = Path(checkpoint)
    run_folder = folder.parent.parent
    if not is_run(run_folder):
        return PLAIN
    run = Run(run_folder)
    plan: Mapping[str, Any] = (run.asked.get("plan") or {}).get("content") or {}
    begun = {event["stage"]: event["step"] for event in reversed(run.events()) if event["event"] == "stage"}
    if folder.name.isdecimal():
        begun = {stage: step for stage, step in begun.items() if step < int(folder.name)}
    for stage in reversed(plan.get("stages", [])):
        if stage["name"] in begun:
            specs = [plan["datasets"][name] for name in stage["datasets"]]
            if (found := _template_of(specs)) is not None:
                return found
    return PLAIN


def _template_of(specs: Iterable[Mapping[str, Any]]) -> Template | None:
    found: Template | None = None
    for spec in specs:
        fields = spec.get("fields") or {}
        if fields.get("messages") is not None:
            return MESSAGES
        if fields.get("truth") is not None:
            found = Template(question_parts(spec.get("template") or PAIR_TEMPLATE), ended=True)
    return found
