"""GPT-2 with an auxiliary loss: one more block predicts the token after the next.

After Gloeckle et al. 2024, "Better & Faster Large Language Models via Multi-token Prediction", section 2.

The extra head shares the output projection and is not used in generation: it only shapes what the blocks learn.
"""

import torch
import torch.nn.functional as F
from torch import nn

from lmplay.base.base_model import LMBase
from lmplay.base.kv_cache import attention_mask, layer_cache, token_positions
from lmplay.modules import Block, Dropout, init_gpt2_
from lmplay.modules.losses import IGNORE, linear_cross_entropy_sum
from lmplay.utils import get_tokenizer, to_name


class GPT2WithAuxLoss(LMBase):
    """GPT2-like transformer model with a second head for the token after the next."""

    supports_left_padding = True

    def __init__(
        self,
        max_len=1024,
        num_heads=12,
        num_blocks=6,
        embed_dim=768,
        attn_dropout=0.1,
        ff_dropout=0.1,
        embed_dropout=0.1,
        aux_weight=0.3,
        version="gpt2ish_with_aux_loss",
        **ignore,
    ):
        super().__init__(
            to_name(version, num_blocks=num_blocks, max_len=max_len),
            max_len=max_len,
            num_heads=num_heads,
            num_blocks=num_blocks,
            embed_dim=embed_dim,
            attn_dropout=attn_dropout,
            ff_dropout=ff_dropout,
            embed_dropout=embed_dropout,
            aux_weight=aux_weight,
            version=version,
        )
        self.aux_weight = aux_weight
        self.tokenizer = get_tokenizer("gpt2")
        vocab_size = self.tokenizer.n_vocab

        self.tok_embed = nn.Embedding(vocab_size, embed_dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, max_len, embed_dim))
        self.dropout = Dropout(embed_dropout)
        self.blocks = nn.ModuleList(
            Block(embed_dim, num_heads, attn_dropout=attn_dropout, ff_dropout=ff_dropout) for _ in range(num_blocks)
        )
        self.ln = nn.LayerNorm(embed_dim)
        self.aux_block = Block(embed_dim, num_heads, attn_dropout=attn_dropout, ff_dropout=ff_dropout)
        self.aux_ln = nn.LayerNorm(embed_dim)
        self.fc = nn.Linear(embed_dim, vocab_size, bias=False)
        init_gpt2_(self, num_blocks)

    def trunk(self, x, cache=None, documents=None):
        """Token ids (B, T) -> what both heads look at (B, T, D)."""
        positions = token_positions(x, cache, documents, max_len=self.max_len)  # (1, T) or (B, T)
        mask = attention_mask(x, cache, documents)
        h = self.dropout(self.tok_embed(x) + F.embedding(positions, self.pos_embed[0]))  # (B, T, D)
        for i, block in enumerate(self.blocks):
            h = block(h, cache=layer_cache(cache, i), mask=mask)
        return h

    def hidden(self, x, cache=None, documents=None):
        """Token ids (B, T) -> the input of `fc` (B, T, D)."""
        return self.ln(self.trunk(x, cache, documents))

    def forward(self, x, cache=None):
        """Training: (B, T) -> logits (B, T, V). With a cache: -> logits of the last token (B, 1, V), and the cache."""
        h = self.hidden(x, cache)
        if cache is None:
            return self.fc(h)
        return self.fc(h[:, -1:]), cache

    def train_loss(self, batch):
        """The loss of the next token and the weighted one of the token after it: means over the batch's targets."""
        h = self.trunk(batch.tokens, documents=batch.documents)
        further = self.aux_ln(self.aux_block(h, mask=attention_mask(batch.tokens, documents=batch.documents)))
        # Both are divided by the same number, so that the size of the pieces never changes the result.
        count = (batch.targets != IGNORE).sum().clamp(min=1)
        return {
            "loss": linear_cross_entropy_sum(self.ln(h), self.fc.weight, batch.targets) / count,
            "next_but_one": self.aux_weight
            * linear_cross_entropy_sum(further, self.fc.weight, targets_after_next(batch))
            / count,
        }


def targets_after_next(batch):
    """(B, T): what follows the target of each position, within its document."""
    later = torch.full_like(batch.targets, IGNORE)
    later[:, :-1] = batch.targets[:, 1:]
    if batch.documents is not None:
        crosses = batch.documents[:, 1:] != batch.documents[:, :-1]  # (B, T - 1)
        later[:, :-1].masked_fill_(crosses, IGNORE)
    return later
