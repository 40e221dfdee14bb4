"""Slots alone: what models decode from them, the controls of visual prediction, and the oracle's state."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ocl_bench.core.types import Batch, Truth
from ocl_bench.models.floors import Oracle
from ocl_bench.models.loading import get_model
from ocl_bench.models.slot_dynamics import Permuted, TrueSlots


def test_slotcontrast_decodes_a_slot_as_in_its_own_frame() -> None:
    """Without the prior of the attention, which a frame that is not there does not have."""
    model = get_model("slotcontrast", options={"attention_prior": False}).model
    video = torch.rand(1, 3, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    found = model.predict(Batch(("a",), video[:, 0], video=video))
    torch.testing.assert_close(model.decode_slots(found.slots[0]), found.masks[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("name", "how"), [("dias", "masked"), ("dinosaur", "slots")])
def test_dias_decodes_slots_without_a_frame(name: str, how: str) -> None:
    model = get_model(name).model
    slots = torch.randn(2, 5, model.slot_dim, generator=torch.Generator().manual_seed(0))
    slots[0, 3] = 0
    masks = model.decode_slots(slots)
    assert model.slots_decode == how and masks.shape == (2, 5, 16, 16)
    torch.testing.assert_close(masks.sum(1), torch.ones(2, 16, 16))
    assert not masks[0, 3].any() and masks[1, 3].any()
    order = torch.tensor([4, 2, 0, 1, 3])
    torch.testing.assert_close(model.decode_slots(slots[:, order]), masks[:, order], rtol=0, atol=1e-5)


def test_the_masked_decoder_is_that_of_a_training_step_without_a_visible_token() -> None:
    """Officially K_vis = 0 lies in the range of the random number of visible tokens."""
    model = get_model("dias", options={"attention_prior": False, "mask_temperature": 1}).model
    slots = torch.randn(1, 5, model.slot_dim, generator=torch.Generator().manual_seed(0))
    tokens = torch.randn(1, 256, model.feature_dim)
    hidden = torch.zeros(1, 256, dtype=torch.bool)
    with torch.no_grad():
        expected = model.decoder(slots, tokens, visible=hidden)[1]
    torch.testing.assert_close(model.decode_slots(slots).flatten(2), expected, rtol=0, atol=1e-6)


def truth(places: list[list[float]]) -> Truth:
    labels = np.zeros((64, 64), np.int16)
    labels[3:20, 5:9], labels[40:50, 30:64] = 1, 2
    return Truth(labels, locations=np.array(places))


def test_the_state_of_the_oracle_holds_places_and_exact_masks() -> None:
    one, two = truth([[1.5, -2.25], [0.5, 3.0], [7.0, 8.0]]), truth([[np.nan, np.nan], [1.0, 2.0], [7.0, 8.0]])
    oracle = Oracle()
    found = oracle.predict(Batch(("a", "b"), torch.zeros(2, 3, 64, 64)), [one, two])
    assert found.slots is not None and found.slots.shape == (2, 4, 173)  # object 3 is hidden in both
    assert found.slots[0, 1:, :2].tolist() == [[1.5, -2.25], [0.5, 3.0], [7.0, 8.0]]
    assert found.slots[1, 1, :2].tolist() == [0, 0]
    masks = oracle.decode_slots(found.slots)
    assert np.array_equal(masks[0].argmax(0).numpy(), one.labels) and not masks[:, 3].any()
    assert torch.equal(masks.sum(1), torch.ones(2, 64, 64))
    assert oracle.decode_slots(torch.zeros(1, 2, 260)).shape == (1, 2, 64, 64)


def test_the_shuffled_past_is_the_same_each_time_and_keeps_its_frames() -> None:
    model, seen = Permuted(get_model("slotmatch").model), []
    slots = torch.arange(6 * 4.0).view(1, 6, 4, 1)

    def rollout(past: torch.Tensor, steps: int) -> torch.Tensor:
        seen.append(past)
        return past[-1:].expand(steps, -1, -1)

    for _ in range(2):
        assert model.predict_slots(slots, 3, rollout=rollout).shape == (1, 3, 4, 1)
    assert torch.equal(seen[0], seen[1]) and not torch.equal(seen[0], slots[0])
    assert torch.equal(seen[0].sort(1).values, slots[0])


@pytest.mark.parametrize("name", ["copy-last", "linear", "permuted", "true-slots"])
def test_the_cards_stand_on_another_model(name: str) -> None:
    loaded = get_model(name, options={"model": "slotmatch"})
    base = get_model("slotmatch")
    role = "ceiling" if name == "true-slots" else "floor"
    assert loaded.card.families == ("dynamics", "contact") and loaded.card.role == role
    assert loaded.checkpoint_sha256 == base.checkpoint_sha256 and loaded.parameters == base.parameters
    video = torch.rand(1, 2, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    batch = Batch(("a",), video[:, 0], video=video)
    assert torch.equal(loaded.model.predict(batch).slots, base.model.predict(batch).slots)
    assert loaded.model.reads_video and callable(loaded.model.decode_slots)


def test_an_image_model_is_linked() -> None:
    video = torch.rand(1, 3, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    found = TrueSlots("dias").predict(Batch(("a",), video[:, 0], video=video))
    assert found.link == "slots" and found.slots is not None and found.slots.shape[:2] == (1, 3)
