"""Segment Anything (arXiv:2304.02643) and SAM 2 (arXiv:2408.00714) without prompts, as a reference beside slot models.

The automatic masks of the papers: points on a regular grid, three masks for each, those kept that the network believes
in and that hardly change with the threshold, and of nearly equal ones the best. The network runs in transformers; the
rest is written here after Sec. 5 and App. B of the first paper, because the image processor there needs torchvision.

Masks may overlap. Discovery wants one segment for each pixel: a smaller mask lies on a larger one, and what no mask
covers is one segment of its own.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.boxes import overlapping, survivors
from ..core.errors import UsageError
from ..core.types import Batch, Prediction
from .hugging_face import check_repository, fingerprint, load_strictly, with_transformers
from .layers.normalisation import normalise

PREDICTED_IOU = {"sam": 0.88, "sam2": 0.8}
"""Smallest believed IoU of a mask in each release, by `model_type` of transformers."""

STABILITY_OFFSET = 1.0
"""Distance from 0 of the two thresholds between which a stable mask hardly changes, in logits."""


class SegmentAnything(nn.Module):
    """A frozen network and the rules by which its masks are kept; options as in `build`."""

    supervision = "masks"

    def __init__(
        self, network: Any, *, points: int, predicted_iou: float, stability: float, overlap: float, chunk: int
    ) -> None:
        super().__init__()
        self.network = network.requires_grad_(False).eval()
        self.predicted_iou, self.stability, self.overlap, self.chunk = predicted_iou, stability, overlap, chunk
        self.input_size = int(network.config.prompt_encoder_config.image_size)
        self.points = grid_of_points(points) * self.input_size
        self.checkpoint_sha256 = fingerprint(network.state_dict())

    @torch.no_grad()
    def predict(self, batch: Batch) -> Prediction:
        """Predict label maps (B, H, W) int64: 0 where no mask lies, then 1, 2, .. from the largest to the smallest.

        Raises:
            UsageError: images of another size than the network's.
        """
        side = self.input_size
        if batch.image.shape[-2:] != (side, side):
            raise UsageError(f"images are {tuple(batch.image.shape[-2:])}, the network needs {side} x {side} pixels")
        image = normalise(batch.image.to(next(self.network.parameters())))
        maps = [label_map(self._masks(one[None])) for one in image]
        return Prediction(masks=torch.stack(maps), mask_source="decoder")

    def _masks(self, image: Tensor) -> Tensor:
        """The kept masks (N, H, W) bool of one image (1, 3, H, W), the best first."""
        embeddings = self.network.get_image_embeddings(image)
        found = [self._of_points(points, embeddings) for points in self.points.to(image).split(self.chunk)]
        masks, scores = (torch.cat(parts) for parts in zip(*found, strict=True))
        kept = survivors(scores.cpu().numpy(), overlapping(boxes_of(masks).cpu().numpy(), self.overlap))
        return masks[torch.from_numpy(kept).to(masks.device)]

    def _of_points(self, points: Tensor, embeddings: Any) -> tuple[Tensor, Tensor]:
        """Masks (N, H, W) bool at the points (P, 2), without doubted and unstable ones, and their believed IoU (N,)."""
        output = self.network(
            input_points=points[None, :, None],
            input_labels=torch.ones(1, len(points), 1, dtype=torch.long, device=points.device),
            image_embeddings=embeddings,
            multimask_output=True,
        )
        scores, logits = output.iou_scores.flatten(), output.pred_masks.flatten(0, 2)
        logits, scores = logits[scores > self.predicted_iou], scores[scores > self.predicted_iou]
        size = (self.input_size, self.input_size)
        logits = F.interpolate(logits[:, None], size, mode="bilinear", align_corners=False)[:, 0]
        kept = (stability_of(logits) >= self.stability) & (logits > 0).flatten(1).any(1)
        return logits[kept] > 0, scores[kept]


def build(
    repo: str = "facebook/sam2.1-hiera-small",
    revision: str | None = None,
    points: int = 32,
    predicted_iou: float | None = None,
    stability: float = 0.95,
    overlap: float = 0.7,
    chunk: int = 16,
) -> SegmentAnything:
    """Download a model of SAM or SAM 2 (or find it in the hub's cache), or read it from a folder.

    Args:
        repo: name on the hub, such as `facebook/sam-vit-base`, or a folder.
        revision: commit of the repository.
        points: on each side of the grid.
        predicted_iou: smallest IoU that the network believes a mask to have; None takes the release's own.
        stability: smallest `stability_of` a mask.
        overlap: IoU of boxes above which the worse of two masks is dropped.
        chunk: points that are decoded at once; memory grows with it, masks stay as they are.

    Raises:
        UsageError: another kind of model, an option out of range, or transformers is not installed.
        DataMissingError: the files are not available.
    """
    for name, number in (("points", points), ("chunk", chunk)):
        if number < 1:
            raise UsageError(f"option {name}: {number} is below 1")
    subject = f"option repo: {repo}"
    check_repository("option repo", repo)

    def load(transformers: Any) -> Any:
        kind = transformers.AutoConfig.from_pretrained(repo, revision=revision).model_type
        kind = {"sam2_video": "sam2"}.get(kind, kind)  # the files of SAM 2 say so; the image model is a part of it
        if kind not in PREDICTED_IOU:
            raise UsageError(f"{subject} is a model of type {kind!r}; supported are {', '.join(PREDICTED_IOU)}")
        wanted = transformers.Sam2Model if kind == "sam2" else transformers.SamModel
        return kind, load_strictly(wanted, subject, repo, revision)

    kind, network = with_transformers(subject, load)
    believed = PREDICTED_IOU[kind] if predicted_iou is None else predicted_iou
    return SegmentAnything(
        network, points=points, predicted_iou=believed, stability=stability, overlap=overlap, chunk=chunk
    )


def grid_of_points(count: int) -> Tensor:
    """Centres (count * count, 2) of the cells of a square grid, xy in [0, 1], row by row."""
    centres = (torch.arange(count, dtype=torch.float32) + 0.5) / count
    return torch.cartesian_prod(centres, centres).flip(1)


def stability_of(logits: Tensor) -> Tensor:
    """How little masks (N, H, W) change with the threshold: the IoU of those above +1 and above -1, (N,).

    A mask without a pixel above -1 has 0.
    """
    inner = (logits > STABILITY_OFFSET).flatten(1).sum(1)
    outer = (logits > -STABILITY_OFFSET).flatten(1).sum(1)
    return inner / outer.clamp_min(1)


def boxes_of(masks: Tensor) -> Tensor:
    """Boxes (N, 4) float32, xyxy, of masks (N, H, W) bool that are not empty: the last pixel counts in."""
    edges: list[Tensor] = []
    for axis in (1, 2):  # columns, then rows
        seen = masks.any(axis).float()
        edges += [seen.argmax(1), seen.shape[1] - seen.flip(1).argmax(1)]
    return torch.stack([edges[0], edges[2], edges[1], edges[3]], 1).float()


def label_map(masks: Tensor) -> Tensor:
    """Masks (N, H, W) bool -> a label map (H, W) int64: a smaller mask lies on a larger one, 0 is what none covers."""
    labels = torch.zeros(masks.shape[1:], dtype=torch.long, device=masks.device)
    order = masks.flatten(1).sum(1).argsort(descending=True, stable=True).tolist()
    for label, number in enumerate(order, start=1):
        labels[masks[number]] = label
    return labels
