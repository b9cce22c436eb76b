"""GPT-2 as it was published: the tanh approximation of the GELU, and an output projection tied to the embedding.

After Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section 2.3, and the released weights.
What `lmplay import` makes of published weights; the baseline, gpt2ish, is untied and has the exact GELU.
"""

import torch
import torch.nn.functional as F
from torch import nn

from lmplay.base.base_model import LMBase
from lmplay.base.kv_cache import attention_mask, layer_cache, token_positions
from lmplay.modules import Block, Dropout, init_gpt2_
from lmplay.utils import get_tokenizer, to_name


class PublishedGPT2(LMBase):
    """GPT-2's transformer."""

    supports_left_padding = True

    def __init__(
        self,
        max_len=1024,
        num_heads=12,
        num_blocks=12,
        embed_dim=768,
        attn_dropout=0.1,
        ff_dropout=0.1,
        embed_dropout=0.1,
        gelu="tanh",
        tied=True,
        version="gpt2",
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
            gelu=gelu,
            tied=tied,
            version=version,
        )
        self.tokenizer = get_tokenizer("gpt2")
        vocab_size = self.tokenizer.n_vocab

        self.tok_embed = nn.Embedding(vocab_size, embed_dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, max_len, embed_dim))
        self.dropout = Dropout(embed_dropout)
        self.blocks = nn.ModuleList(
            Block(embed_dim, num_heads, attn_dropout=attn_dropout, ff_dropout=ff_dropout, gelu=gelu)
            for _ in range(num_blocks)
        )
        self.ln = nn.LayerNorm(embed_dim)
        self.fc = nn.Linear(embed_dim, vocab_size, bias=False)
        if tied:
            self.fc.weight = self.tok_embed.weight
        init_gpt2_(self, num_blocks)

    def hidden(self, x, cache=None, documents=None):
        """Token ids (B, T) -> the input of `fc` (B, T, D).

        With `documents` (B, T), the index of the document at each position, the documents of a packed row don't see
        each other.
        """
        positions = token_positions(x, cache, documents, max_len=self.max_len)  # (1, T) or (B, T)
        mask = attention_mask(x, cache, documents)
        h = self.dropout(self.tok_embed(x) + F.embedding(positions, self.pos_embed[0]))  # (B, T, D)
        for i, block in enumerate(self.blocks):
            h = block(h, cache=layer_cache(cache, i), mask=mask)
        return self.ln(h)

    def forward(self, x, cache=None):
        """Training: (B, T) -> logits (B, T, V). With a cache: -> logits of the last token (B, 1, V), and the cache."""
        h = self.hidden(x, cache)
        if cache is None:
            return self.fc(h)
        return self.fc(h[:, -1:]), cache
