"""Aloe's head as SlotFormer uses it (Ding et al. 2021, arXiv:2012.08508; pairlab/SlotFormer, commit 10a6d9b).

A transformer reads the slots of 25 frames and the words of a question about the video. Words come as numbers, see
`data.readers.clevrer`; 0 is padding.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from .checkpoints.export import read_checkpoint
from .checkpoints.names import rename_keys
from .layers.rollouter import transformer

SIZES: dict[str, dict[str, int]] = {
    "clevrer": {"frames": 25, "embedding": 14, "layers": 12, "heads": 8, "hidden": 512, "head_hidden": 128},
    "embedded": {"frames": 8, "embedding": 12, "layers": 2, "heads": 4, "hidden": 128, "head_hidden": 64},
}
"""Sizes of the head: that of SlotFormer, and a small one that is fitted in a minute."""

ALOE_NAMES = (
    (r"transformer_model\.CLS$", "summary"),
    (r"transformer_model\.(text|vision)_token$", r"\1_bits"),
    (r"transformer_model\.cls_token$", "descriptive_bits"),
    (r"transformer_model\.mc_(question|choice)_token$", r"\1_bits"),
    (r"transformer_model\.q_embedding\.", "embedding."),
    (r"transformer_model\.q_in_proj\.", "project_words."),
    (r"transformer_model\.vision_in_proj\.", "project_slots."),
    (r"transformer_model\.cls_answer_mlp\.", "answer."),
    (r"transformer_model\.mc_answer_mlp\.", "judge."),
    (r"transformer_model\.transformer_encoder\.pos_embedding$", "positions"),
    (r"transformer_model\.transformer_encoder\.layers\.", "transformer.layers."),
)
"""Names in official checkpoints -> names here; each pattern matches from a key's start."""


def _constant(*values: float) -> nn.Parameter:
    """A parameter without gradient, because the official file stores these constants."""
    return nn.Parameter(torch.tensor(values, dtype=torch.float32), requires_grad=False)


class Aloe(nn.Module):
    """Answers questions with a word, and judges the choices of multiple-choice questions one by one.

    Args:
        slot_dim: C of the slots.
        frames: number of frames.
        slots: K, slots of a frame.
        embedding: width of a word.
        layers, heads, hidden: of the transformer, whose width is (embedding + 4) x heads.
        head_hidden: width of the hidden layer of the two heads.
        question_length: words of a question, padding included.
        choice_length: words of a choice, padding included.
        words: size of the vocabulary of questions, padding included.
        answers: size of the vocabulary of answers, padding included.
    """

    def __init__(
        self,
        slot_dim: int = 128,
        *,
        frames: int = 25,
        slots: int = 7,
        embedding: int = 14,
        layers: int = 12,
        heads: int = 8,
        hidden: int = 512,
        head_hidden: int = 128,
        question_length: int = 20,
        choice_length: int = 12,
        words: int = 82,
        answers: int = 22,
    ) -> None:
        super().__init__()
        self.question_length, self.choice_length = question_length, choice_length
        dim = (embedding + 4) * heads
        length = 1 + frames * slots + question_length + choice_length
        self.summary = nn.Parameter(torch.zeros(1, 1, dim))
        self.positions = nn.Parameter(torch.zeros(1, length, dim))
        self.text_bits, self.vision_bits = _constant(1, 0), _constant(0, 1)
        self.question_bits, self.choice_bits = _constant(1, 0), _constant(0, 1)
        self.descriptive_bits = _constant(0, 1)
        self.embedding = nn.Embedding(words, embedding)
        self.project_words = nn.Linear(embedding + 4, dim)
        self.project_slots = nn.Linear(slot_dim + 2, dim)
        self.transformer = transformer(dim, layers, heads, hidden)
        self.answer = nn.Sequential(nn.Linear(dim, head_hidden), nn.ReLU(), nn.Linear(head_hidden, answers))
        self.judge = nn.Sequential(nn.Linear(dim, head_hidden), nn.ReLU(), nn.Linear(head_hidden, 1))

    def descriptive(self, slots: Tensor, words: Tensor) -> Tensor:
        """Answer questions that have no choices.

        Args:
            slots: (B, T, K, C) of the video of each question.
            words: (B, question_length + choice_length) int64.

        Returns:
            (B, answers) logits.
        """
        bits = self.descriptive_bits.expand(*words.shape, -1)
        return self.answer(self._read(self.tokens(slots, words, bits), words))

    def choices(self, slots: Tensor, words: Tensor) -> Tensor:
        """Judge choices, each with its question.

        Args:
            slots: (B, T, K, C) of the video of each choice.
            words: (B, question_length + choice_length) int64: the padded question, then the padded choice.

        Returns:
            (B,) logits; a choice is judged correct if its logit is above 0.
        """
        return self.judge(self._read(self.tokens(slots, words, self._parts(len(words))), words))[:, 0]

    def _parts(self, batch: int) -> Tensor:
        """The two bits (B, words, 2) that tell the words of a question from those of a choice."""
        parts = [self.question_bits.expand(self.question_length, -1), self.choice_bits.expand(self.choice_length, -1)]
        return torch.cat(parts).expand(batch, -1, -1)

    def tokens(self, slots: Tensor, words: Tensor, bits: Tensor) -> Tensor:
        """The input (B, 1 + T K + words, D) of the transformer: summary, slots frame by frame, words."""
        embedded = self.embedding(words)
        text = self.project_words(torch.cat([embedded, bits, self.text_bits.expand_as(bits)], dim=2))
        flat = slots.flatten(1, 2)
        seen = self.project_slots(torch.cat([flat, self.vision_bits.expand(*flat.shape[:2], -1)], dim=2))
        return torch.cat([self.summary.expand(len(words), -1, -1), seen, text], dim=1) + self.positions

    def _read(self, tokens: Tensor, words: Tensor) -> Tensor:
        """The summary (B, D) of tokens; nothing attends to padding."""
        padding = torch.zeros(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        padding[:, -words.shape[1] :] = words == 0
        return self.transformer(tokens, src_key_padding_mask=padding)[:, 0]

    def read_checkpoint(self, path: Path) -> dict[str, Tensor]:
        """Read the tensors of a file, or of its `state_dict`; no code in it is run."""
        return read_checkpoint(path)

    def translate_checkpoint(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rename the tensors of an official checkpoint; one with our names is returned unchanged.

        Raises UsageError for a tensor that this model does not have.
        """
        return dict(state) if "summary" in state else rename_keys(state, ALOE_NAMES)
