"""What makes a training of the encoder cheap changes nothing but rounding: against the plain formulas."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tiny_training import tiny_model, tiny_objective

from ocl_bench.models.encoder import Encoder
from ocl_bench.training import views
from ocl_bench.training.encoder_objectives import draw_box_pairs, info_nce
from ocl_bench.training.views import BANK, Photometry, mirrored, photometric_view, shared_geometry


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("blocks", [(1,), (1, 1), (3, 1)])
def test_chosen_tokens_have_the_values_and_gradients_of_all_tokens(blocks: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    model, image = Encoder(16, 8, blocks).double(), torch.rand(3, 3, 32, 48).double()
    places = torch.tensor([0, 5, 5, 11, 18, 23, 30, 71])  # corners, borders and the middle, one of them twice
    weight = torch.randn(len(places), 8).double()
    answers = []
    for tokens in (model.tokens_at(image, places), model(image).flatten(2).transpose(1, 2).flatten(0, 1)[places]):
        answers.append([tokens, *torch.autograd.grad((tokens * weight).sum(), list(model.parameters()))])
    for chosen, plain in zip(*answers, strict=True):
        torch.testing.assert_close(chosen, plain, rtol=1e-10, atol=1e-12)


def test_info_nce_has_the_gradient_of_the_plain_formula() -> None:
    anchors, candidates = (F.normalize(torch.randn(n, 4, generator=source(n)), dim=1).requires_grad_() for n in (5, 7))
    positive, excluded = torch.tensor([0, 3, 3, 6, 1]), torch.rand(5, 7, generator=source()) < 0.5
    before = excluded.clone()
    kept = excluded.scatter(1, positive.unsqueeze(1), False)
    plain = F.cross_entropy((anchors @ candidates.T / 0.1).masked_fill(kept, float("-inf")), positive)
    loss = info_nce(anchors, candidates, positive, excluded, 0.1)
    torch.testing.assert_close(loss, plain)
    for found, wanted in zip(*(torch.autograd.grad(x, [anchors, candidates]) for x in (loss, plain)), strict=True):
        torch.testing.assert_close(found, wanted)
    assert torch.equal(excluded, before)


@pytest.mark.parametrize("balance", [0.0, 0.7])
def test_pairs_are_the_draws_of_the_plain_formula(balance: float) -> None:
    labels = torch.randint(-1, 4, (6, 25), generator=source())
    usable = labels >= 0
    same = (labels.unsqueeze(1) == labels.unsqueeze(2)) & usable.unsqueeze(1)
    draw = source(1)
    anchor = torch.multinomial(
        usable / same.sum(2).clamp(min=1).float() ** balance, 9, replacement=True, generator=draw
    )
    rows = torch.gather(same, 1, anchor.unsqueeze(2).expand(-1, -1, 25))
    others = rows.scatter(2, anchor.unsqueeze(2), False)
    rows = torch.where(others.any(2, keepdim=True), others, rows)
    positive = torch.multinomial(rows.flatten(0, 1).float(), 1, generator=draw).view_as(anchor)
    found = draw_box_pairs(labels, 9, balance, source(1))
    assert torch.equal(found[0], anchor) and torch.equal(found[1], positive)


def test_views_are_those_of_the_plain_formulas() -> None:
    draw, image = source(), torch.rand(4, 3, 16, 24, generator=source(2))
    values = torch.rand(6, 4, generator=draw)
    places = torch.tensor([[0, 500, BANK - 1, 7], [BANK - 3, 0, 490, 9]])  # windows that continue on the other side
    view = Photometry(*values[:2], *values[2:5], values[5], *places)
    row = (places[0].view(-1, 1) + torch.arange(16)) % BANK
    column = (places[1].view(-1, 1) + torch.arange(24)) % BANK
    noise = views._noise_bank(image.device)[:, row.unsqueeze(2), column.unsqueeze(1)].transpose(0, 1)
    assert torch.equal(views._noise(image, view), noise)
    b, c, *gain, n = (value.view(-1, 1, 1, 1) for value in values)
    mean = image.mean((1, 2, 3), keepdim=True)
    plain = (((image - mean) * c + mean + b) * torch.cat(gain, 1) + n * noise).clamp(0, 1)
    torch.testing.assert_close(photometric_view(image, view), plain, rtol=0, atol=2e-6)


def test_whole_images_are_mirrored_as_by_resampling() -> None:
    objective = tiny_objective(zoom=1.0, batch=8)
    inputs = objective.batch(1)
    geometry = views.Geometry.unstack(inputs["geometry"])
    assert 0 < int(geometry.flip.sum()) < 8
    found = mirrored(inputs["image"], geometry.flip).float() / 255
    torch.testing.assert_close(found, shared_geometry(inputs["image"].float() / 255, geometry), rtol=0, atol=2e-5)


@pytest.mark.parametrize("kind", ["neighbour", "boxes", "segments"])
def test_a_loss_is_that_of_all_tokens(kind: str) -> None:
    model, objective = tiny_model(), tiny_objective(kind)
    inputs = objective.batch(0)
    chosen = objective.loss(model, inputs, 0.0)["total"]
    plain = objective.loss(lambda image: model(image), inputs, 0.0)["total"]  # offers no choice of tokens
    torch.testing.assert_close(chosen, plain, rtol=1e-5, atol=0)
