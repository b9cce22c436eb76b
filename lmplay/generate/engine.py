"""The decode loop: prompts in, texts out. Called by the command line, the server and the training loop's samples.

Nothing here touches the global random generators, and the model's modules leave in the mode in which they came.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lmplay.base.base_model import LMBase
from lmplay.generate.config import SamplingConfig
from lmplay.generate.context import Context, takes_rows_of_any_length
from lmplay.generate.sampling import Sampler, all_finite, make_generators
from lmplay.generate.text_stream import TextStream, decode

# New tokens after which the time that recording a step takes has been made good.
RECORDING_PAYS = 256


@dataclass(frozen=True)
class TokenProbability:
    """How likely the model held a token to be, before temperature and filters."""

    token: int
    text: str
    probability: float
    alternatives: tuple[TokenProbability, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Generation:
    """What came of one prompt (or of one sample of it)."""

    prompt_tokens: list[int]
    tokens: list[int]
    """The new ids, without the `<|endoftext|>` that ended them."""
    text: str
    """The text of `tokens`, up to the stop string where one was met."""
    stopped_by: str
    """`max_tokens`, `end_of_text`, `stop` (a stop string), `cancelled` or `not_finite` (the logits had a NaN)."""
    time_to_first_token: float
    """Seconds from the call until the first token was there, or until it was clear that none will come."""
    tokens_per_second: float
    """Of the decoding after the first token; of the whole call for fewer than two tokens."""
    slides: int = 0
    """How often the oldest tokens were dropped because the row had outgrown the model's `max_len`."""
    not_compiled: str | None = None
    """Why the decoding steps were not compiled although that was asked for."""
    reused_tokens: int = 0
    """How many tokens before the text were in the cache already; above 0 only in a `Session`."""
    probabilities: list[TokenProbability] = field(default_factory=list)


class Row:
    """The state of one row while it is being decoded."""

    def __init__(self, prompt: list[int], stream: TextStream) -> None:
        self.prompt = prompt
        self.stream = stream
        self.tokens: list[int] = []
        self.probabilities: list[TokenProbability] = []
        self.stopped_by: str | None = None
        self.first: float | None = None  # when the first token was there, and the last
        self.last: float | None = None

    def result(self, started: float, context: Context, *, slides_before: int = 0, reused_tokens: int = 0) -> Generation:
        assert self.stopped_by is not None
        ended = time.perf_counter()
        first, last = self.first or ended, self.last or ended
        decoded = len(self.tokens) - 1
        count, seconds = (decoded, last - first) if decoded > 0 else (len(self.tokens), last - started)
        return Generation(
            prompt_tokens=self.prompt,
            tokens=self.tokens,
            text=self.stream.text,
            stopped_by=self.stopped_by,
            time_to_first_token=first - started,
            tokens_per_second=count / max(seconds, 1e-9),
            slides=context.slides - slides_before,
            not_compiled=context.not_compiled,
            reused_tokens=reused_tokens,
            probabilities=self.probabilities,
        )


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Eval mode and no gradients inside; each module leaves in its own mode, as a model may freeze only some."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


def encode_prompt(model: LMBase, prompt: str | Sequence[int]) -> list[int]:
    """Token ids of a prompt. An empty one becomes `<|endoftext|>`, which is what stands before every document."""
    tokens = model.tokenizer.encode_ordinary(prompt) if isinstance(prompt, str) else list(prompt)
    return tokens or [model.tokenizer.eot_token]


def generate(
    model: LMBase,
    prompts: Sequence[str | Sequence[int]],
    config: SamplingConfig | None = None,
    *,
    samples: int = 1,
    probabilities: int | None = None,
    on_text: Callable[[int, str], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    compiled: str | None = None,
) -> list[Generation]:
    """Continue each prompt `samples` times; results are in the order of the prompts, samples of one side by side.

    Sample j of every prompt draws from a generator of its own with `config.seed + j`, so a row's text depends neither
    on its neighbours nor on their number. `on_text(row, text)` gets each row's text as it becomes certain.
    `probabilities` asks for each token's probability and so many alternatives; `cancelled` is asked before each token.
    `compiled` names a backend of `torch.compile` (`inductor`) for the steps: worth it for long texts on a GPU.
    """
    config = config or SamplingConfig()
    started = time.perf_counter()
    device = next(model.parameters()).device
    rows = [
        Row(encode_prompt(model, prompt), TextStream(model.tokenizer, config.stop))
        for prompt in prompts
        for _ in range(samples)
    ]
    seeds = [config.seed + sample for _ in prompts for sample in range(samples)]
    context_of: dict[int, Context] = {}
    with evaluating(model):
        for group in _batches(model, rows):
            sampler = Sampler(config, make_generators([seeds[index] for index in group], device))
            members = [rows[index] for index in group]

            def tell(member: int, text: str, group: list[int] = group) -> None:
                if on_text is not None and text:
                    on_text(group[member], text)

            capacity = max(len(row.prompt) for row in members) + config.max_tokens
            recorded = config.max_tokens >= RECORDING_PAYS
            context = Context(model, len(members), capacity=capacity, compiled=compiled, recorded=recorded)
            decode_rows(context, members, [row.prompt for row in members], sampler, probabilities, tell, cancelled)
            context_of |= dict.fromkeys(group, context)
    return [row.result(started, context_of[index]) for index, row in enumerate(rows)]


def generate_text(
    model: LMBase,
    prompt: str,
    *,
    max_tokens: int = 64,
    temperature: float = 0.8,
    top_k: int = 50,
    top_p: float = 1.0,
    seed: int = 0,
) -> str:
    """The continuation of one prompt; what training shows at a validation. See `generate`."""
    config = SamplingConfig(max_tokens=max_tokens, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
    return generate(model, [prompt], config)[0].text


def _batches(model: LMBase, rows: Sequence[Row]) -> list[list[int]]:
    """Indexes of the rows that may be decoded together: all of them, or those of one length."""
    if takes_rows_of_any_length(model):
        return [list(range(len(rows)))] if rows else []
    by_length: dict[int, list[int]] = {}
    for index, row in enumerate(rows):
        by_length.setdefault(len(row.prompt), []).append(index)
    return list(by_length.values())


def decode_rows(
    context: Context,
    rows: Sequence[Row],
    new: Sequence[Sequence[int]],
    sampler: Sampler,
    probabilities: int | None,
    tell: Callable[[int, str], None],
    cancelled: Callable[[], bool] | None,
) -> None:
    """Feed `new` to the context and run the rows of one batch to their ends; `tell(row, text)` what becomes certain."""
    model, config = context.model, sampler.config
    for _ in range(config.max_tokens):
        if cancelled is not None and cancelled():
            _stop(rows, "cancelled")
            break
        # A vocabulary that was padded for speed has logits that stand for no token.
        logits = context.feed(new)[:, : model.tokenizer.n_vocab]
        finite = all_finite(logits)
        seen = (
            [torch.tensor(row.prompt + row.tokens, device=logits.device) for row in rows] if _penalised(config) else []
        )
        chosen = sampler(logits if all(finite) else logits.nan_to_num(), seen)
        tokens = chosen.tolist()
        told = _probabilities(model, logits, chosen, probabilities) if probabilities is not None else None
        now = time.perf_counter()
        for member, (row, token) in enumerate(zip(rows, tokens, strict=True)):
            if row.stopped_by is not None:
                continue
            if not finite[member]:
                row.stopped_by = "not_finite"
            elif token == model.tokenizer.eot_token:
                row.stopped_by = "end_of_text"
            else:
                row.first, row.last = row.first or now, now
                row.tokens.append(token)
                if told is not None:
                    row.probabilities.append(told[member])
                tell(member, row.stream.push(token))
                if row.stream.stopped:
                    row.stopped_by = "stop"
        if all(row.stopped_by is not None for row in rows):
            break
        new = [[token] for token in tokens]
    _stop(rows, "max_tokens")
    for member, row in enumerate(rows):
        tell(member, row.stream.finish())


def _stop(rows: Sequence[Row], reason: str) -> None:
    for row in rows:
        if row.stopped_by is None:
            row.stopped_by = reason


def _penalised(config: SamplingConfig) -> bool:
    return config.repetition_penalty != 1.0


def _probabilities(model: LMBase, logits: Tensor, chosen: Tensor, alternatives: int) -> list[TokenProbability]:
    """Of each row's chosen token, with that many of the most likely tokens beside it."""
    shares = logits.float().softmax(dim=-1)  # (B, V)
    best, ids = shares.topk(min(alternatives, shares.size(-1)), dim=-1)  # (B, A)
    own = shares.gather(1, chosen.unsqueeze(1)).squeeze(1).tolist()

    def describe(token: int, share: float, others: tuple[TokenProbability, ...] = ()) -> TokenProbability:
        return TokenProbability(token, decode(model.tokenizer, [token]), share, others)

    return [
        describe(token, share, tuple(map(describe, others, their_shares)))
        for token, share, others, their_shares in zip(chosen.tolist(), own, ids.tolist(), best.tolist(), strict=True)
    ]
