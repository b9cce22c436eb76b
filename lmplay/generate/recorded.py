"""One decoding step as a recorded program: the same operations on the same memory, run without Python in between.

A step of one token is some three hundred small operations between the products that read the weights. What Python needs
to find each of them takes longer than they do: as the weights stream through the processor's caches, nothing of it is
still there the next time. So the operations of a step are written down once, as torch's dispatcher meets them, and
torch's interpreter of programs (TorchScript) runs them from then on, with the same results to the last bit.

Only what is the same for every token may be written down. The step is recorded at several positions of the cache and
with several tokens: the operations must be the same, and each number among their arguments constant, or the position
plus a constant. A model that looks into its tensors from Python (experts chosen by `tolist()`, an early exit), that
draws random numbers, keeps a state of its own or attends through a window cut out by Python takes the plain way.
`Context` records a step when enough of them have been made; on a GPU, `compiled.py` does the same by other means.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from lmplay.base.base_model import LMBase
from lmplay.base.kv_cache import KVCache, LayerCache

# What follows from these depends on what is in a tensor.
_CHANGING = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
# How Python looks into a tensor without torch's dispatcher.
_LOOKS = {Tensor.tolist, Tensor.numpy, Tensor.__array__, Tensor.data_ptr, Tensor.untyped_storage}


class NotRecordableError(Exception):
    """Why a model's step can't be written down."""


@dataclass(frozen=True)
class _Value:
    """The result of an operation, by the operation's place in the program, and its own where there are several."""

    operation: int
    place: int | None


@dataclass(frozen=True)
class _Outside:
    """What the program is given: the tokens (0), a weight, the memory of the cache. By the order of its first use."""

    place: int


@dataclass(frozen=True)
class _Position:
    """The position of the token, plus this."""

    more: int


@dataclass
class _Recording:
    """The operations of one step at one position."""

    outside: list[object] = field(default_factory=list)
    operations: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)
    """(operation, arguments, keywords); tensors among the arguments are `_Value` or `_Outside`."""
    result: Any = None
    logits: Tensor | None = None


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Writes down every operation that the dispatcher is given, and does it."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # True would load torch's compiler, which takes longer than all of the recording

    def __init__(self, tokens: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.recording = _Recording([tokens])
        self._known: dict[int, _Value | _Outside] = {id(tokens): _Outside(0)}
        self._alive: list[object] = []  # else another tensor might get the id of one that is gone

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if _CHANGING & set(func.tags):
            raise NotRecordableError(f"{func} gives something else for each token")
        arguments = tuple(self.name(argument) for argument in args)
        keywords = {key: self.name(argument) for key, argument in (kwargs or {}).items()}
        result = func(*args, **(kwargs or {}))
        number = len(self.recording.operations)
        self.recording.operations.append((func, arguments, keywords))
        several = isinstance(result, tuple | list)
        for place, one in enumerate(result if several else (result,)):
            if isinstance(one, Tensor):
                self._alive.append(one)
                self._known[id(one)] = _Value(number, place if several else None)
        return result

    def name(self, argument: Any) -> Any:
        if isinstance(argument, list | tuple):
            return [self.name(one) for one in argument]
        if not isinstance(argument, Tensor | torch.ScriptObject):
            return argument
        if id(argument) not in self._known:
            self._known[id(argument)] = _Outside(len(self.recording.outside))
            self.recording.outside.append(argument)
        return self._known[id(argument)]


class _NoLooking(TorchFunctionMode):
    """Refuses what passes by the dispatcher."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _LOOKS:
            raise NotRecordableError(f"Python looks into a tensor by {getattr(func, '__name__', func)}")
        return func(*args, **(kwargs or {}))


class RecordedStep:
    """Tokens (B, 1) that stand at `position` -> logits (B, V), written for the memory of one cache."""

    def __init__(self, program: Callable[..., Tensor], outside: Sequence[object]) -> None:
        self._program = program
        self._outside = outside

    def __call__(self, tokens: Tensor, position: int) -> Tensor:
        return self._program(position, tokens, *self._outside)


def record(model: LMBase, cache: object, tokens: Tensor) -> RecordedStep:
    """The step that has just been made with `tokens` (B, 1) at the end of `cache`, whose content stays as it is.

    Positions after the end are written to, as steps to come will do anyway. Raises `NotRecordableError` where the
    model's steps aren't all alike, and whatever the model raises.
    """
    if not isinstance(cache, KVCache) or not len(cache) or not all(type(layer) is LayerCache for layer in cache):
        raise NotRecordableError("the model keeps a cache of its own kind")
    here, last = cache.length - 1, min(layer.keys.size(2) for layer in cache) - 1
    if last < here + 3:
        raise NotRecordableError("the cache is nearly full")
    places = [here, here + 1, _roundest(here + 2, last), last]
    # Other tokens take other ways through a model that looks at them.
    tried = {place: (tokens + 31 * (place - here)) % model.tokenizer.n_vocab for place in places}
    try:
        recordings = {place: _record_at(model, cache, tried[place], place) for place in places}
        step = RecordedStep(*_compile(_merge(recordings)))
        for place, recording in recordings.items():
            assert recording.logits is not None
            if not torch.equal(step(tried[place], place), recording.logits):
                raise NotRecordableError("the recorded step gives other logits")
    finally:
        for layer in cache:
            layer.length = here + 1
    return step


def _roundest(start: int, end: int) -> int:
    """Of the numbers from `start` up to `end` the multiple of the largest power of two: where periods of chunks end."""
    power = 1 << end.bit_length()
    while end & -power < start:  # `end`, rounded down to a multiple
        power >>= 1
    return end & -power


def _record_at(model: LMBase, cache: KVCache, tokens: Tensor, position: int) -> _Recording:
    for layer in cache:
        layer.length = position
    recorder, drawn = _Recorder(tokens), torch.get_rng_state()
    with _NoLooking(), recorder:
        logits = model(tokens, cache)[0][:, -1]  # (B, V)
    if not torch.equal(torch.get_rng_state(), drawn):
        torch.set_rng_state(drawn)
        raise NotRecordableError("the model draws random numbers")
    recorder.recording.result, recorder.recording.logits = recorder.name(logits), logits
    return recorder.recording


def _merge(recordings: Mapping[int, _Recording]) -> _Recording:
    """What holds at every position, numbers that grow with it as `_Position`."""
    first, *others = recordings.values()
    positions = list(recordings)
    for other in others:
        if [one[0] for one in other.operations] != [one[0] for one in first.operations]:
            raise NotRecordableError("the model does something else from token to token")
        if len(other.outside) != len(first.outside):
            raise NotRecordableError("the model reads other tensors from token to token")
        for ours, theirs in zip(first.outside[1:], other.outside[1:], strict=True):
            if not _same(ours, theirs):
                raise NotRecordableError("the model keeps a state of its own")
    operations = []
    for number, (function, _, _) in enumerate(first.operations):
        calls = [recording.operations[number] for recording in recordings.values()]
        arguments = _merge_values([call[1] for call in calls], positions)
        keywords = {key: _merge_values([call[2][key] for call in calls], positions) for key in calls[0][2]}
        operations.append((function, arguments, keywords))
    if not all(recording.result == first.result for recording in others):
        raise NotRecordableError("the model's result comes from elsewhere from token to token")
    return _Recording(first.outside, operations, first.result)


def _same(ours: object, theirs: object) -> bool:
    """Whether an outside value is the same in two recordings: one object, or a constant that was made anew."""
    if ours is theirs or isinstance(ours, torch.ScriptObject):  # packed weights, which come in a new shell each time
        return type(ours) is type(theirs)
    if not isinstance(ours, Tensor) or not isinstance(theirs, Tensor):
        return False
    return ours.numel() == theirs.numel() == 1 and ours.dtype == theirs.dtype and torch.equal(ours, theirs)


def _merge_values(values: Sequence[Any], positions: Sequence[int]) -> Any:
    """One argument at all positions -> what it is in general."""
    first = values[0]
    if isinstance(first, list | tuple):
        if len({len(value) for value in values}) > 1:
            raise NotRecordableError("an argument's length depends on the position")
        return [_merge_values(members, positions) for members in zip(*values, strict=True)]
    if all(type(value) is type(first) and value == first for value in values):
        return first
    if all(type(value) is int for value in values):
        more = {value - position for value, position in zip(values, positions, strict=True)}
        if len(more) == 1:
            return _Position(more.pop())
    raise NotRecordableError("a number depends on the position otherwise than by growing with it")


def _compile(recording: _Recording) -> tuple[Callable[..., Tensor], list[object]]:
    """-> (a program of (position, tokens, *outside), outside)."""
    outside = recording.outside[1:]
    kinds = ["Tensor" if isinstance(one, Tensor) else one._type().annotation_str for one in outside]  # type: ignore[attr-defined]
    parameters = ["position: int", "o0: Tensor", *(f"o{number}: {kind}" for number, kind in enumerate(kinds, 1))]
    lines = [f"def step({', '.join(parameters)}) -> Tensor:"]
    for number, (function, arguments, keywords) in enumerate(recording.operations):
        kind_of = {one.name: one.type.annotation_str for one in function._schema.arguments}
        given = [_written(value, kind) for value, kind in zip(arguments, kind_of.values(), strict=False)]
        given += [f"{key}={_written(value, kind_of[key])}" for key, value in keywords.items()]
        namespace, name = function._schema.name.split("::")
        lines.append(f"    r{number} = torch.ops.{namespace}.{name}({', '.join(given)})")
    lines.append(f"    return {_written(recording.result)}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        program = torch.jit.CompilationUnit("\n".join(lines) + "\n").step
    return program, outside


def _written(value: Any, kind: str = "") -> str:
    """A value in TorchScript's own language. `kind` is its type in the operation's schema."""
    match value:
        case _Outside(place):
            return f"o{place}"
        case _Position(more):
            return f"(position + {more})"
        case _Value(operation, place):
            return f"r{operation}" if place is None else f"r{operation}[{place}]"
        case list():
            members = f"[{', '.join(_written(member) for member in value)}]"
            # An empty list, or one with None in it, doesn't say by itself what it is a list of.
            return members if not kind.startswith("List[") else f"torch.jit.annotate({kind}, {members})"
        case torch.device():
            return f'torch.device("{value}")'
        case float() if not math.isfinite(value):
            return f'float("{value}")'
        case None | bool() | int() | float() | str() | torch.dtype() | torch.layout() | torch.memory_format():
            return repr(value)
    raise NotRecordableError(f"an argument is a {type(value).__name__}")
