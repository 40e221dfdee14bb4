"""ODIS: self-distillation of objects (arXiv:2506.05409), with iBOT (arXiv:2111.07832) and DINO (arXiv:2104.14294).

The training objective calls, in training mode, once per step:

    Odis.loss(views: Views, *, epoch: float, momentum: float, ranks: RankOps = RankOps()) -> dict[str, Tensor]

It moves the teacher towards the student as the last optimiser step left it (momentum: 0 ... 1), computes the losses and
moves the centres. epoch: epochs done, may be fractional; sets the teacher's temperature and, while it is below
`freeze_last_layer`, keeps gradients from the last layer. The result has "total" with gradient, and without "object",
"patch", "image" (those in use) and "coverage", the share of images whose object is in both global views.

`patches_of_boxes(boxes (..., 4), size (H, W), patch, margin) -> BoxPatches` (layers/patches.py) makes the object masks;
`normalise` (layers/normalisation.py) the views' pixels; `Odis.patch` is the side of a patch and `Odis.objects` is O.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Views:
    """What one step sees of B images: 2 global views of S x S pixels, L local ones of s x s.

    globals: (2, B, 3, S, S), from `normalise`. locals: (L, B, 3, s, s), L may be 0. objects: (2, B, O, P) bool, the
    patches of the global views in row-major order that [OBJ] may attend to; no patch leaves it alone with itself.
    present: (2 + L, B) bool, the views that show the object; others are left out of the object loss. hidden: (2, B, P)
    bool, patches of the global views that the student does not see.
    """

    globals: Tensor
    locals: Tensor
    objects: Tensor
    present: Tensor
    hidden: Tensor
