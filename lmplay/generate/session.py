"""One row of text whose cache outlives a call: a turn of a chat computes only what is new. Used by the server.

A call gives the whole text so far. What it shares with the last one from the start is in the cache already, whatever
led there: the next turn, an answer taken back, the same question again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from lmplay.base.base_model import LMBase
from lmplay.generate.config import SamplingConfig
from lmplay.generate.context import Context
from lmplay.generate.engine import Generation, Row, decode_rows, evaluating
from lmplay.generate.sampling import Sampler, make_generators
from lmplay.generate.text_stream import TextStream


class Session:
    def __init__(self, model: LMBase, *, compiled: str | None = None, recorded: bool = False) -> None:
        """`compiled` and `recorded` are `Context`'s, and are done in `warm_up` where that is called first."""
        self.model = model
        self._compiled = compiled
        self._recorded = recorded
        self._context = self._new_context()
        self._dropped: list[int] = []  # the tokens before those that the context holds

    def _new_context(self) -> Context:
        return Context(self.model, compiled=self._compiled, recorded=self._recorded)

    @property
    def cache_bytes(self) -> int:
        return self._context.nbytes

    @property
    def held_tokens(self) -> int:
        return len(self._context.rows[0])

    def reset(self) -> None:
        """Forget everything; after an error in the model, for the cache may hold half a step."""
        self._context = self._new_context()
        self._dropped = []

    def warm_up(self) -> None:
        """Run two tokens, so that the cache takes its memory and the step is recorded, or compiled, now."""
        with evaluating(self.model):
            for _ in range(2):
                self._context.feed([[self.model.tokenizer.eot_token]])

    @property
    def not_compiled(self) -> str | None:
        """Why the steps are not compiled although that was asked for; known after `warm_up`."""
        return self._context.not_compiled

    @property
    def not_recorded(self) -> str | None:
        """Likewise of recording."""
        return self._context.not_recorded

    def generate(
        self,
        tokens: Sequence[int],
        config: SamplingConfig,
        *,
        probabilities: int | None = None,
        on_text: Callable[[str], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Generation:
        """Continue `tokens`, at least one; as `engine.generate`, with the cache of the calls before."""
        started = time.perf_counter()
        whole = list(tokens)
        reused, new = self._reuse(whole)
        row = Row(whole, TextStream(self.model.tokenizer, config.stop))
        sampler = Sampler(config, make_generators([config.seed], self._context.device))
        slides_before = self._context.slides

        def tell(_: int, text: str) -> None:
            if on_text is not None and text:
                on_text(text)

        with evaluating(self.model):
            decode_rows(self._context, [row], [new], sampler, probabilities, tell, cancelled)
        self._dropped = (whole + row.tokens)[: self._context.dropped[0]]
        return row.result(started, self._context, slides_before=slides_before, reused_tokens=reused)

    def _reuse(self, whole: list[int]) -> tuple[int, list[int]]:
        """Rewind the context to what it shares with `whole`; -> (tokens reused, tokens to feed, at least one)."""
        known = self._dropped + self._context.rows[0]
        shared = 0
        # The last token is fed in any case: its logits are what is asked for.
        for ours, theirs in zip(known, whole[:-1], strict=False):
            if ours != theirs:
                break
            shared += 1
        kept = shared - len(self._dropped)
        if kept > 0 and self._context.rewind(kept):
            return kept, whole[shared:]
        if self._context.rewind(0):
            self._dropped, self._context.dropped = [], [0]
        else:
            self.reset()
        return 0, whole
