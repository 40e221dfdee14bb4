"""The training losses of all models, as functions of tensors without weights of their own.

Each one names the section of the paper and the file of the official code that it follows, and says where it departs
from them. The models weigh and add them (`SlotCon.loss`, `SlotContrast.loss`, `SlotMatch.loss`, `VideoSAUR.loss`,
`Odis.loss`, `DIAS.loss`).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .ranks import RankOps

# ----------------------------------------------------------------------------------------------------- SlotCon


def group_loss(
    student: Tensor, teacher: Tensor, centre: Tensor, student_temperature: float, teacher_temperature: float
) -> Tensor:
    """Cross entropy between the prototypes that teacher and student assign to each pixel, mean over pixels.

    Source: SlotCon (arXiv:2205.15288), Sec. 3.1; `self_distill` in the official `models/slotcon.py`.

    Args:
        student: (B, K, h, w) cosines of one view.
        teacher: (B, K, h, w) cosines of the other view, aligned to the same grid.
        centre: (1, K), moving average of the teacher's cosines. Its subtraction keeps one prototype from winning
            everywhere.
        student_temperature: divides the student's cosines.
        teacher_temperature: divides the teacher's centred cosines.

    Returns:
        A scalar with gradient.
    """
    target = ((teacher - centre[..., None, None]) / teacher_temperature).softmax(1)
    # Views that do not overlap have aligned maps of exactly 0 (see `layers.alignment`). As in the official code they
    # stay in the mean: they add the constant log K and no gradient.
    return F.cross_entropy(student / student_temperature, target)


def slot_loss(
    queries: Tensor,
    keys: Tensor,
    query_mask: Tensor,
    key_mask: Tensor,
    predictor: Callable[[Tensor], Tensor],
    temperature: float,
    ranks: RankOps,
) -> tuple[Tensor, Tensor]:
    """Contrast slots: the student's predicted slot must match the teacher's slot of the same image and prototype.

    Source: SlotCon (arXiv:2205.15288), Sec. 3.2; `ctr_loss_filtered` in the official `models/slotcon.py`. Departure:
    the official code averages over the pairs of each rank, so every rank weighs equally; here every pair does.

    Args:
        queries: (B, K, D) slots of the student in one view.
        keys: (B, K, D) slots of the teacher in the other view, without gradient.
        query_mask: (B, K) bool, slots that win a pixel in the student's view.
        key_mask: (B, K) bool, slots that win a pixel in the teacher's view.
        predictor: maps rows (N, D) to (N, D); only pairs pass through it.
        temperature: divides the cosines.
        ranks: the other processes of the training; their keys are candidates as well.

    Returns:
        The loss, whose mean over the ranks is the mean over all pairs, and the number of pairs on all ranks. With
        fewer than two pairs the predictor's batch norm has no statistics: the loss is then 0 with gradient 0.
    """
    shared = query_mask & key_mask
    pairs = (ranks.mean(shared.sum().to(keys.dtype)) * ranks.size).round()
    if pairs < 2:
        # Not a plain zero: a distributed backward pass needs a gradient for every rank.
        return queries.sum() * 0, pairs
    counts = ranks.gather(key_mask.sum().view(1))
    # Absent slots are not among the candidates, so a slot's column is the number of present slots before it.
    columns = counts[: ranks.rank].sum() + key_mask.flatten().cumsum(0).view_as(key_mask) - 1
    present = ranks.gather(keys[key_mask])
    predicted = predictor(queries[shared])
    with torch.autocast(keys.device.type, enabled=False):
        logits = F.normalize(predicted.to(keys.dtype), dim=1) @ F.normalize(present, dim=1).T / temperature
        entropy = F.cross_entropy(logits, columns[shared], reduction="sum")
    # The factor 2 temperature is that of MoCo v3 (arXiv:2104.02057) and of the official code.
    return 2 * temperature * entropy * ranks.size / pairs, pairs


# ------------------------------------------------------------------------------------------------ SlotContrast


def slot_contrast(
    slots: Tensor, temperature: float = 0.1, batch_contrast: bool = True, ranks: RankOps = RankOps()
) -> Tensor:
    """Cross entropy of finding each slot of frame t + 1 among the slots of frame t, in nats.

    Source: SlotContrast (arXiv:2412.14295); the official `slotcontrast/losses.py`. Departures: with several ranks
    the candidates are those of the joint batch (the official code contrasts within each GPU), and one frame gives 0
    (officially NaN).

    Args:
        slots: (B, T, K, D), corrected slots; T is the same on all ranks.
        temperature: divides the cosines.
        batch_contrast: whether slots of the other videos are candidates, or only those of the same video.
        ranks: the other processes of the training.

    Returns:
        A scalar with gradient, the mean over (T - 1) B K slots. The mean of its gradients over the ranks is the
        gradient of the joint loss. Computed in float32 or more, also under autocast.
    """
    if slots.shape[1] < 2:
        return slots.sum() * 0
    with torch.autocast(slots.device.type, enabled=False):
        unit = F.normalize(slots.to(torch.promote_types(slots.dtype, torch.float32)), dim=-1)
        if batch_contrast:
            unit = _joint(unit, ranks).transpose(0, 1).flatten(1, 2)
        similarity = unit[..., :-1, :, :] @ unit[..., 1:, :, :].transpose(-2, -1) / temperature
        # Rows are slots of frame t, columns those of t + 1, and the softmax runs over rows. The project page draws the
        # opposite direction; the official code trains this one, as it passes matrices to `cross_entropy` as
        # (N, class, position).
        loss = -similarity.log_softmax(-2).diagonal(dim1=-2, dim2=-1).mean()
        if batch_contrast and ranks.size > 1:
            # Every rank computes the whole loss, but with the gradient of its own slots only. The trainer averages
            # gradients over the ranks, so they are scaled up here and the value is left alone.
            loss = loss.detach() + ranks.size * (loss - loss.detach())
    return loss


def _joint(rows: Tensor, ranks: RankOps) -> Tensor:
    """Rows (n, ...) of all ranks in rank order; only this rank's rows have a gradient."""
    if ranks.size == 1:
        return rows
    counts = ranks.gather(torch.tensor([len(rows)], device=rows.device))
    start, everything = int(counts[: ranks.rank].sum()), ranks.gather(rows.detach())
    return torch.cat([everything[:start], rows, everything[start + len(rows) :]])


# --------------------------------------------------------------------------------------------------- SlotMatch


def slot_distillation(student: Tensor, teacher: Tensor) -> Tensor:
    """Cosine distance of slots with the same number, mean over all of them.

    Source: the abstract of SlotMatch (arXiv:2508.03411) names the cosine of corresponding slots. The mean over all
    frames and slots is our choice.

    Args:
        student: (B, T, K, D).
        teacher: (B, T, K, D), used without gradient.

    Returns:
        A scalar in [0, 2] with gradient, computed in float32 or more, also under autocast.
    """
    with torch.autocast(student.device.type, enabled=False):
        wide = torch.promote_types(student.dtype, torch.float32)
        return (1 - F.cosine_similarity(student.to(wide), teacher.detach().to(wide), dim=-1)).mean()


def mask_distillation(student: Tensor, teacher: Tensor) -> Tensor:
    """Kullback-Leibler divergence KL(teacher || student) of masks, mean over tokens, in nats.

    Args:
        student: (B, T, K, P), sums over the slots are 1.
        teacher: (B, T, K, P), likewise; used without gradient.

    Returns:
        A scalar with gradient.
    """
    # A mask may be exactly 0, and 0 log 0 is 0 here: the smallest normal number keeps the logarithm finite.
    smallest = torch.finfo(student.dtype).tiny
    teacher = teacher.detach().to(student.dtype)
    divergence = teacher * (teacher.clamp_min(smallest).log() - student.clamp_min(smallest).log())
    return divergence.sum(2).mean()


# ---------------------------------------------------------------------------------------------- ODIS, iBOT, DINO


def targets(logits: Tensor, centre: Tensor, temperature: Tensor | float) -> Tensor:
    """The teacher's probabilities of prototypes: logits (..., K), centred by (1, K), sharpened, softmax.

    Source: DINO (arXiv:2104.14294), Sec. 3.1; `DINOLoss` in the official `main_dino.py`. iBOT and ODIS use the same
    centring, and no Sinkhorn-Knopp.
    """
    return ((logits - centre) / temperature).softmax(-1)


@torch.no_grad()
def sinkhorn_targets(
    logits: Tensor, temperature: Tensor | float, iterations: int = 3, ranks: RankOps = RankOps()
) -> Tensor:
    """Probabilities of prototypes that use all of them equally: Sinkhorn-Knopp in place of centring.

    Source: SwAV (arXiv:2006.09882), Sec. 3.1, and DINOv2 (arXiv:2304.07193), whose 3 iterations are the default.

    Args:
        logits: (N, K) of the teacher; N may be 0, and may differ between ranks.
        temperature: divides the logits.
        iterations: of scaling prototypes to equal sums, then rows to the sum 1.
        ranks: the other processes of the training: a prototype is used equally over the joint batch.

    Returns:
        (N, K), rows sum to 1; columns sum to nearly the joint N / K.
    """
    # In the logarithm: with a temperature of 0.02, exponentials of cosines span 43 orders of magnitude.
    scores = logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature
    for _ in range(iterations):
        scores = scores - _column_sums(scores, ranks)
        scores = scores.log_softmax(1)
    return scores.exp()


def _column_sums(scores: Tensor, ranks: RankOps) -> Tensor:
    """Logarithms (1, K) of the sums of exp(scores) (N, K) over the rows of all ranks."""
    # Joined by logarithms of each rank's sums; a rank without rows has the sum 0.
    own = scores.logsumexp(0, keepdim=True) if len(scores) else scores.new_full((1, scores.shape[1]), -torch.inf)
    return ranks.gather(own).logsumexp(0, keepdim=True)


@torch.no_grad()
def distillation_monitors(target: Tensor, vectors: Tensor, ranks: RankOps = RankOps()) -> dict[str, Tensor]:
    """Numbers that tell whether a teacher says anything, for the log of every self-distilling training.

    Args:
        target: (N, K) probabilities of the teacher.
        vectors: (M, D) unit vectors of its head.
        ranks: the other processes of the training; all of them have equally many rows.

    Returns:
        `monitor_target_entropy`: entropy of the targets / log K, mean over rows. 1: the teacher is undecided, it says
        nothing. `monitor_mean_target_entropy`: entropy of their mean / log K. 0: all rows get the same prototype.
        `monitor_head_cosine`: mean cosine of two different vectors of a rank. 1: all tokens are the same to the head.
    """
    target, vectors = target.float(), vectors.float()
    bits = torch.tensor(target.shape[1], device=target.device).log()
    count = len(vectors)
    # The sum over all pairs is the squared length of the sum; each vector's cosine with itself is 1.
    pairs = vectors.sum(0).square().sum() - vectors.square().sum()
    return {
        "monitor_target_entropy": torch.special.entr(target).sum(1).mean() / bits,
        "monitor_mean_target_entropy": torch.special.entr(ranks.mean(target.mean(0))).sum() / bits,
        "monitor_head_cosine": pairs / max(1, count * (count - 1)),
    }


def view_contrast(vectors: Tensor, present: Tensor, temperature: float, ranks: RankOps = RankOps()) -> Tensor:
    """InfoNCE of two views: each vector must find that of the same image in the other view, among all of the batch.

    Source: SimCLR (arXiv:2002.05709), Eq. 1 (NT-Xent). Candidates are both views of all images but the vector itself.

    Args:
        vectors: (2, B, D) unit vectors of the student.
        present: (2, B) bool, the views that show the object; others are no candidates. All true for images.
        temperature: divides the cosines.
        ranks: the other processes of the training; their vectors are candidates as well.

    Returns:
        A scalar with gradient, the mean over the 2 B vectors. An image that lacks the object in a view counts as 0.
    """
    joint = _joint(vectors.transpose(0, 1), ranks).transpose(0, 1)
    shown = ranks.gather(present.T.to(vectors.dtype)).T > 0
    flat, count = joint.flatten(0, 1), 2 * joint.shape[1]
    logits = flat @ flat.T / temperature
    itself = torch.eye(count, dtype=torch.bool, device=flat.device)
    logits = logits.masked_fill(itself | ~shown.flatten(), -torch.inf)
    other = torch.arange(count, device=flat.device).roll(count // 2)
    both = shown.all(0).repeat(2)
    loss = F.cross_entropy(logits[both], other[both], reduction="sum") / count
    # Every rank computes the whole loss with the gradient of its own vectors, see `slot_contrast`.
    return loss.detach() + ranks.size * (loss - loss.detach()) if ranks.size > 1 else loss


def cross_view_loss(student: Tensor, target: Tensor, present: Tensor, temperature: float) -> Tensor:
    """Cross entropy of each of the teacher's two views with all *other* views of the student.

    Source: DINO (arXiv:2104.14294), Sec. 3.1, for images; ODIS (arXiv:2506.05409) for objects. ODIS has no public
    code: that absent objects count as 0 follows a public follow-up of it (KarahanS/Cross-Time-Self-Distillation).

    Args:
        student: (V, B, O, K) logits of V views.
        target: (2, B, O, K) probabilities of the first two views.
        present: (V, B) bool, the views that show the object.
        temperature: divides the student's logits.

    Returns:
        A scalar with gradient: the mean over all 2 (V - 1) pairs and B images. Pairs in which a view lacks the object
        stay in the denominator, so an image without an object does not give the others more weight.
    """
    entropy = -torch.einsum("qbok,vbok->qvb", target, (student / temperature).log_softmax(-1)) / student.shape[2]
    views = len(student)
    # A view is never compared with itself: that is the task of the patch loss.
    other = ~torch.eye(views, dtype=torch.bool, device=student.device)[:2]
    counted = other[:, :, None] & present[:2, None] & present[None]
    return (entropy * counted).sum() / (2 * (views - 1) * student.shape[1])


def patch_loss(student: Tensor, target: Tensor, hidden: Tensor, temperature: float) -> Tensor:
    """Cross entropy at hidden patches: mean over the hidden patches of a view, then over the N views.

    Source: iBOT (arXiv:2111.07832), Sec. 3; `iBOTLoss` in the official `main_ibot.py`.

    Args:
        student: (M, K) logits of the M hidden patches, in order.
        target: (M, K) probabilities of the same patches.
        hidden: (N, P) bool with M entries that are true.
        temperature: divides the student's logits.

    Returns:
        A scalar with gradient. A view in which nothing is hidden counts as 0.
    """
    entropy = -(target * (student / temperature).log_softmax(-1)).sum(-1)
    # The weight of a patch is 1 / (hidden patches of its view); the clamp is for views without any, as in iBOT.
    share = 1 / hidden.sum(1, keepdim=True).clamp(min=1).to(entropy.dtype)
    return (entropy * share.expand(hidden.shape)[hidden]).sum() / len(hidden)


# -------------------------------------------------------------------------------------------------------- DIAS


def distillation_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Self-distillation of attention: the first iteration's map learns from the last one's.

    Source: DIAS (arXiv:2507.23755); the loss of the official `config-dias/dias_r-*.py`.

    Args:
        student: (B, K, P) attention, already a softmax over the slots.
        teacher: (B, K, P) attention of a later iteration of the same pass, used without gradient.

    Returns:
        A scalar with gradient, the mean over images and tokens. With K slots it lies between about
        log(e + K - 1) - 1 and log K, and never reaches 0.
    """
    # The student is a probability and is passed as logits all the same: a second softmax. The official code does so,
    # and a cross entropy of the probabilities themselves would have other gradients.
    return F.cross_entropy(student, teacher.detach())


def distillation_to_merged_loss(student: Tensor, teacher: Tensor, members: Tensor) -> Tensor:
    """Self-distillation towards the merged slots: the first map, added up over each cluster, learns from the final one.

    Our variant (not in the paper) of `distillation_loss`, in two respects: the teacher is the map after merging, and
    the loss is the cross entropy of the probabilities themselves.

    Args:
        student: (B, K, P) attention of the first iteration, a softmax over the slots.
        teacher: (B, K, P) attention after merging, 0 in slots that were merged away; used without gradient.
        members: (B, K, K) from `merge_slots`.

    Returns:
        A scalar with gradient, the mean over images and tokens. It is the entropy of the teacher where both agree.
    """
    pooled = (members @ student).clamp_min(1e-8)  # a slot that is merged away has 0 on both sides
    return -(teacher.detach() * pooled.log()).sum(dim=1).mean()


# ---------------------------------------------------------------------------------------------------- VideoSAUR


def time_similarity_targets(keys: Tensor, temperature: float, threshold: float = 0.0) -> Tensor:
    """Where each token's content is in the next frame: a distribution over its tokens.

    Source: VideoSAUR (arXiv:2306.04829); `FeatureTimeSimilarity` in the official `videosaur/modules/utils.py`.

    Args:
        keys: (B, T, P, D), the encoder's attention keys.
        temperature: divides the cosines.
        threshold: cosines below it get no share. A token for which all are below gets equal shares.

    Returns:
        (B, T - 1, P, P), which sum to 1 over the tokens of the next frame, without gradient.
    """
    unit = F.normalize(keys.detach(), dim=-1)
    cosines = unit[:, :-1] @ unit[:, 1:].transpose(2, 3)
    kept = cosines.masked_fill(cosines < threshold, -torch.inf)
    nothing = (cosines < threshold).all(dim=-1, keepdim=True)
    return (kept.masked_fill(nothing, 0.0) / temperature).softmax(dim=-1)


def time_similarity(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy of predicted similarities (B, T, P, P) with `time_similarity_targets`, mean over pairs of frames.

    The last frame has no successor, so its logits are not used.
    """
    return F.cross_entropy(logits[:, :-1].flatten(0, 2), targets.flatten(0, 2))
