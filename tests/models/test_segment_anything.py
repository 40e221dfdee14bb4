"""SAM and SAM 2: the rules for masks on made-up masks, and small random networks of transformers from end to end."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ocl_bench.core.errors import DataMissingError, UsageError
from ocl_bench.core.types import Batch
from ocl_bench.models.layers.normalisation import normalise
from ocl_bench.models.loading import get_model
from ocl_bench.models.segment_anything import (
    SegmentAnything,
    boxes_of,
    build,
    grid_of_points,
    label_map,
    stability_of,
)

transformers = pytest.importorskip("transformers")
SIDE = 64
DECODER = {"hidden_size": 16, "mlp_dim": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
DECODER |= {"iou_head_hidden_dim": 16, "attention_downsample_rate": 1}
PROMPTS = {"hidden_size": 16, "image_size": SIDE, "mask_input_channels": 4}


def small_sam() -> Any:
    vision = transformers.SamVisionConfig(
        hidden_size=16,
        output_channels=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=SIDE,
        patch_size=8,
        mlp_dim=32,
        window_size=4,
        global_attn_indexes=[0],
        num_pos_feats=8,
    )
    prompts = transformers.SamPromptEncoderConfig(**PROMPTS, patch_size=8)
    decoder = transformers.SamMaskDecoderConfig(**DECODER)
    config = transformers.SamConfig(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=decoder)
    return transformers.SamModel(config)


def small_sam2() -> Any:
    from transformers.models.sam2 import Sam2PromptEncoderConfig

    backbone = transformers.Sam2HieraDetConfig(
        hidden_size=16,
        num_attention_heads=1,
        blocks_per_stage=[1, 1, 1, 1],
        embed_dim_per_stage=[16, 32, 64, 128],
        num_attention_heads_per_stage=[1, 2, 4, 8],
        window_size_per_stage=[4, 4, 4, 4],
        global_attention_blocks=[],
        image_size=[SIDE, SIDE],
        window_positional_embedding_background_size=[4, 4],
    )
    vision = transformers.Sam2VisionConfig(
        backbone_config=backbone,
        backbone_channel_list=[128, 64, 32, 16],
        backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
        fpn_hidden_size=16,
    )
    prompts = Sam2PromptEncoderConfig(**PROMPTS, patch_size=16)
    decoder = transformers.Sam2MaskDecoderConfig(**DECODER)
    config = transformers.Sam2Config(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=decoder)
    return transformers.Sam2Model(config)


MAKERS = {"sam": small_sam, "sam2": small_sam2}


@pytest.fixture(params=list(MAKERS))
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Any]:
    """The folder of a small network whose masks differ from point to point, and the network."""
    torch.manual_seed(5)
    network = MAKERS[request.param]().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    network.save_pretrained(tmp_path)
    return str(tmp_path), network


def images(count: int = 1, side: int = SIDE) -> Batch:
    generator = torch.Generator().manual_seed(1)
    return Batch(tuple(map(str, range(count))), torch.rand(count, 3, side, side, generator=generator))


class Blobs:
    """Made-up network: around each point three discs, of other sizes, beliefs and sharpness from point to point."""

    config = SimpleNamespace(prompt_encoder_config=SimpleNamespace(image_size=SIDE))

    def get_image_embeddings(self, image: Tensor) -> Tensor:
        return image.mean((1, 2, 3))

    def __call__(
        self, input_points: Tensor, input_labels: Tensor, image_embeddings: Tensor, multimask_output: bool
    ) -> SimpleNamespace:
        assert multimask_output and input_labels.shape == input_points.shape[:3] == (1, input_points.shape[1], 1)
        steps = (torch.arange(SIDE // 4) + 0.5) * 4
        y, x = torch.meshgrid(steps, steps, indexing="ij")
        points = input_points[0, :, 0]
        distance = ((x - points[:, 0, None, None]) ** 2 + (y - points[:, 1, None, None]) ** 2).sqrt()
        mixed = (points[:, 0] * 0.37 + points[:, 1] * 0.61 + image_embeddings).sin()
        radius = torch.stack([5 + 3 * mixed, 11 + 5 * mixed, 30 + 8 * mixed], 1)
        sharpness = (0.4 + 0.3 * mixed)[:, None, None, None]
        logits = (radius[:, :, None, None] - distance[:, None]) * sharpness
        scores = 0.8 + 0.2 * (5 * mixed[:, None] + torch.arange(3.0)).cos()
        return SimpleNamespace(pred_masks=logits[None], iou_scores=scores[None])


def masks_by_hand(
    network: Any, image: Tensor, points: int, believed: float, stability: float, overlap: float
) -> tuple[list[Tensor], int]:
    """All rules once more, one mask at a time, with loops: the masks that are kept, and how many there were."""
    embeddings = network.get_image_embeddings(normalise(image))
    found, count = [], 0
    for row in range(points):
        for column in range(points):
            xy = torch.tensor([[[[(column + 0.5) / points * SIDE, (row + 0.5) / points * SIDE]]]])
            label = torch.ones(1, 1, 1, dtype=torch.long)
            output = network(input_points=xy, input_labels=label, image_embeddings=embeddings, multimask_output=True)
            for logits, score in zip(output.pred_masks[0, 0], output.iou_scores[0, 0], strict=True):
                count += 1
                large = F.interpolate(logits[None, None], (SIDE, SIDE), mode="bilinear", align_corners=False)[0, 0]
                inner, outer = int((large > 1).sum()), int((large > -1).sum())
                if float(score) > believed and outer and inner / outer >= stability and bool((large > 0).any()):
                    found.append((float(score), large > 0))
    found.sort(key=lambda one: -one[0])
    kept: list[tuple[Tensor, tuple[int, ...]]] = []
    for _, mask in found:
        ys, xs = mask.nonzero(as_tuple=True)
        box = (int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1)
        if all(iou(box, other) <= overlap for _, other in kept):
            kept.append((mask, box))
    return [mask for mask, _ in kept], count


def map_by_hand(masks: list[Tensor]) -> Tensor:
    expected = torch.zeros(SIDE, SIDE, dtype=torch.long)
    for label, mask in enumerate(sorted(masks, key=lambda mask: -int(mask.sum())), start=1):
        expected[mask] = label
    return expected


def iou(a: tuple[int, ...], b: tuple[int, ...]) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    common = max(0, width) * max(0, height)
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


def test_each_rule_drops_masks_and_the_rest_is_that_of_the_rules_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SegmentAnything, "__init__", lambda self: torch.nn.Module.__init__(self))
    model = SegmentAnything()
    model.network, model.input_size = Blobs(), SIDE
    model.points, model.chunk = grid_of_points(8) * SIDE, 7
    image = images().image
    counts = []
    for rules in ((0.0, 0.0, 1.0), (0.75, 0.0, 1.0), (0.75, 0.7, 1.0), (0.75, 0.7, 0.7)):
        model.predicted_iou, model.stability, model.overlap = rules
        masks, count = masks_by_hand(Blobs(), image, 8, *rules)
        assert torch.equal(label_map(model._masks(normalise(image))), map_by_hand(masks)), rules
        counts.append(len(masks))
    assert count == 3 * 64 and sorted(set(counts), reverse=True) == counts and counts[-1] > 5


def test_a_network_is_asked_for_each_point(saved: tuple[str, Any]) -> None:
    folder, network = saved
    model = build(folder, points=2, predicted_iou=-1e9, stability=0.0, overlap=1.0, chunk=3)
    batch = images()
    with torch.no_grad():
        masks, count = masks_by_hand(network, batch.image, 2, -1e9, 0.0, 1.0)
    assert count == 12 and len(masks) >= 2
    assert torch.equal(model.predict(batch).masks[0], map_by_hand(masks))


def test_masks_do_not_depend_on_the_chunk(saved: tuple[str, Any]) -> None:
    folder, _ = saved
    options = {"points": 4, "predicted_iou": -100.0, "stability": 0.5}
    one, all_at_once = (build(folder, chunk=chunk, **options).predict(images()).masks for chunk in (1, 16))
    assert torch.equal(one, all_at_once)


def test_each_release_has_its_own_belief_and_doubted_masks_are_gone(saved: tuple[str, Any]) -> None:
    folder, network = saved
    assert build(folder).predicted_iou == {"sam": 0.88, "sam2": 0.8}[network.config.model_type]
    assert build(folder, points=2, predicted_iou=1e6).predict(images()).masks.unique().tolist() == [0]


def test_the_card_ranks_among_models_that_saw_masks(saved: tuple[str, Any]) -> None:
    loaded = get_model("sam-hub", options={"repo": saved[0], "points": 3})
    assert loaded.card.supervision == "masks" and len(loaded.checkpoint_sha256) == 64
    assert loaded.model.input_size == SIDE
    prediction = loaded.model.predict(images())
    assert prediction.mask_source == "decoder" and prediction.masks.shape == (1, SIDE, SIDE)


def test_points_are_the_centres_of_cells_row_by_row() -> None:
    assert grid_of_points(2).tolist() == [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]


def test_stability_is_the_share_that_survives_a_higher_threshold() -> None:
    logits = torch.tensor([[[2.0, 2.0, 0.5, -2.0]], [[-3.0, -3.0, -3.0, -3.0]], [[5.0, 5.0, 5.0, 5.0]]])
    assert stability_of(logits).tolist() == pytest.approx([2 / 3, 0.0, 1.0])


def test_boxes_end_after_the_last_pixel() -> None:
    mask = torch.zeros(1, 5, 6, dtype=torch.bool)
    mask[0, 1:3, 2:6] = True
    assert boxes_of(mask).tolist() == [[2.0, 1.0, 6.0, 3.0]]


def test_a_smaller_mask_lies_on_a_larger_one() -> None:
    masks = torch.zeros(2, 2, 3, dtype=torch.bool)
    masks[0, 0, 0] = True
    masks[1, :, :2] = True
    assert label_map(masks).tolist() == [[2, 1, 0], [1, 1, 0]]
    assert label_map(masks[:0]).tolist() == [[0, 0, 0], [0, 0, 0]]


def test_bad_input_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(DataMissingError, match=f"^option repo: there is no such folder: {tmp_path / 'nothing'}$"):
        build(str(tmp_path / "nothing"))
    with pytest.raises(DataMissingError, match="is not available"):
        build(str(tmp_path))
    transformers.BertConfig().save_pretrained(tmp_path)
    with pytest.raises(UsageError, match="of type 'bert'; supported are sam, sam2"):
        build(str(tmp_path))
    with pytest.raises(UsageError, match="option points: 0 is below 1"):
        build(str(tmp_path), points=0)


def test_images_of_another_size_are_refused(saved: tuple[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"images are \(32, 32\), the network needs 64 x 64 pixels"):
        build(saved[0]).predict(images(side=32))
