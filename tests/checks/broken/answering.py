"""Models whose forward pass does not give what its callers build on."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lmplay.base.base_model import LMBase
from lmplay.exp.gpt2ish.model import GPT2


class Raises(GPT2):
    def hidden(self, x: Tensor, cache: Any = None, documents: Any = None) -> Tensor:
        raise RuntimeError("mat1 and mat2 shapes\ncannot be multiplied")


class ReturnsPair(GPT2):
    def forward(self, x: Tensor, cache: Any = None) -> Any:
        return super().forward(x, cache), cache


class ShortTable(GPT2):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pos_embed = nn.Parameter(self.pos_embed[:, 1:].detach())


class WritesIntoItsInput(GPT2):
    def forward(self, x: Tensor, cache: Any = None) -> Any:
        x[:, 0] = 0
        return super().forward(x, cache)


class Answers(GPT2):
    """Changes what comes back without a cache."""

    def answer(self, logits: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor, cache: Any = None) -> Any:
        answer = super().forward(x, cache)
        return self.answer(answer) if cache is None else answer


class TransposedLogits(Answers):
    def answer(self, logits: Tensor) -> Tensor:
        return logits.transpose(1, 2)


class Probabilities(Answers):
    def answer(self, logits: Tensor) -> Tensor:
        return logits.softmax(-1)


class WholeNumbers(Answers):
    def answer(self, logits: Tensor) -> Tensor:
        return logits.long()


class FewLogits(Answers):
    def answer(self, logits: Tensor) -> Tensor:
        return logits[..., :99]


class Bare(LMBase):
    """Its layer is in a plain list, so torch does not know of it."""

    def __init__(self, max_len: int = 32, num_blocks: int = 1, embed_dim: int = 8, num_heads: int = 1) -> None:
        super().__init__("bare", max_len=max_len)
        self.layers = [nn.Embedding(self.vocab_size, embed_dim)]

    def forward(self, x: Tensor, cache: Any = None) -> Any:
        return self.layers[0](x)


class Talkative(GPT2):
    def forward(self, x: Tensor, cache: Any = None) -> Any:
        print("x is", x.shape)  # noqa: T201
        return super().forward(x, cache)


class WideParameter(GPT2):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.gate = nn.Parameter(torch.tensor(np.ones(1)))

    def hidden(self, x: Tensor, cache: Any = None, documents: Any = None) -> Tensor:
        return super().hidden(x, cache, documents) * self.gate.float()


class WideTable(GPT2):
    """Adds a table of numpy's, before a layer that takes float32."""

    def hidden(self, x: Tensor, cache: Any = None, documents: Any = None) -> Tensor:
        return super().hidden(x, cache, documents) + torch.from_numpy(np.ones(self.ln.normalized_shape))


class WideLogits(Answers):
    def answer(self, logits: Tensor) -> Tensor:
        return logits * torch.from_numpy(np.ones(logits.size(-1)))


class MakesLayers(GPT2):
    def hidden(self, x: Tensor, cache: Any = None, documents: Any = None) -> Tensor:
        h = super().hidden(x, cache, documents)
        if not hasattr(self, "extra"):
            self.extra = nn.Linear(h.size(-1), h.size(-1))
        return h + self.extra(h)


class OnTheCPU(GPT2):
    """Makes its positions where no one else's are."""

    def hidden(self, x: Tensor, cache: Any = None, documents: Any = None) -> Tensor:
        return super().hidden(x, cache, documents) + 0.01 * torch.arange(x.size(1)).view(1, -1, 1)


class LeavesItsTableBehind(GPT2):
    """A table that `.to(device)` does not know of."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.table = torch.ones(self.ln.normalized_shape)

    def hidden(self, x: Tensor, cache: Any = None, documents: Any = None) -> Tensor:
        return super().hidden(x, cache, documents) * self.table
