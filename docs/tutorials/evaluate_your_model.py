# %% [markdown]
# # Evaluate your own slot model
#
# You have a model that turns an image into slots and masks, and you want to know how good it is. This tutorial wraps
# a small slot model, checks the wrapper, scores the model on 16 rendered scenes of the CLEVRTEX task, and reads the
# result. Nothing is downloaded, and no GPU is needed.
#
# [This page as a notebook](evaluate_your_model.ipynb)
#
# ## A model
#
# Ours is the core of slot attention (Locatello et al., 2020) without any learnt weight. Slots start from noise. They
# compete for pixels by a softmax over the slots, and each becomes the mean of the pixels that it won. A pixel is
# described by its colour and its place.

# %%
import torch

from ocl_bench import Batch, Prediction, check_model, evaluate


class TinySlots:
    """Soft clustering of colour and place by competing slots."""

    supervision = "none"  # what it saw in training, encoder included: no labels
    input_size = 64  # the suite gives it square images of this side

    def __init__(self, slots: int = 11, rounds: int = 10, temperature: float = 0.01) -> None:
        self.slots, self.rounds, self.temperature = slots, rounds, temperature

    def features(self, image: torch.Tensor) -> torch.Tensor:
        """Images (B, 3, H, W) in [0, 1] as features (B, H W, 5): red, green, blue, x and y."""
        batch, _, height, width = image.shape
        y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
        place = torch.stack([x, y]).expand(batch, 2, height, width)
        return torch.cat([image, place], 1).flatten(2).transpose(1, 2)

    def predict(self, batch: Batch) -> Prediction:
        """Soft masks and slots of a batch of images."""
        features = self.features(batch.image)
        slots = 0.5 + 0.2 * batch.noise(self.slots, features.shape[2])  # (B, K, 5)
        for _ in range(self.rounds):
            distance = (slots[:, :, None] - features[:, None]).square().sum(3)  # (B, K, H W)
            attention = (-distance / self.temperature).softmax(1)
            slots = attention @ features / attention.sum(2, keepdim=True)
        side = batch.image.shape[-1]
        return Prediction(masks=attention.unflatten(2, (side, side)), slots=slots, mask_source="attention")


# %% [markdown]
# Three things matter here:
#
# - `predict` takes a `Batch` and returns a `Prediction`. There is no base class, and nothing to register.
# - The noise comes from `batch.noise`, not from the global generator. A prediction then depends on the noise seed and
#   on the image, and on nothing else.
# - `supervision` says what the model saw in training. Results rank only beside results with the same supervision.
#
# A model that you already have as an `nn.Module` needs no class around it: [`evaluate(net, ...,
# masks_from="masks")`](../add-a-model.md#a-plain-module).
#
# ## Check it first
#
# `check_model` predicts four made-up images in several orders and batch sizes. It takes seconds and needs no data.

# %%
model = TinySlots()
for check in check_model(model, "clevrtex"):
    print("ok  " if check.passed else "FAIL", check.name, "-", check.detail, check.remedy)

# %% [markdown]
# ## Score it
#
# `limit=16` takes the first 16 of 512 scenes, which are rendered on your machine at the first use. Without `limit`,
# the same call scores all of them.

# %%
result = evaluate(model, "clevrtex", limit=16, name="tiny-slots", progress=False)
print(result)

# %% [markdown]
# Each metric stands with its 95 % interval over the images. With 16 images the intervals are wide: a difference that
# is smaller than an interval is not a finding. The line below the table is the *signature*. It is the whole protocol:
# crop, origin of the masks, resolution, and the rules for void pixels and empty images. Two numbers with different
# signatures must not be compared. [Why numbers differ](../why-numbers-differ.md) shows what happens if one does.
#
# ## Put it beside floors and a ceiling
#
# Is that good? A number tells little before you know what a model reaches that has no idea of objects. `grid` cuts
# every image into the same rectangles, `kmeans` clusters pixels, and `oracle` knows the truth.

# %%
scores = {"tiny-slots": result}
for name in ("grid", "kmeans", "oracle"):
    scores[name] = evaluate(name, "clevrtex", limit=16, progress=False)

for name, scored in scores.items():
    print(f"{name:10}", *(f"  {metric} {scored.metrics[metric]}" for metric in ("mbo_fg", "ari", "fg_ari")))

# %% [markdown]
# Look at `fg_ari` of the grid. It never looks at the image, and reaches more than half of what is possible. Here it
# is even ahead of our slots, which are ahead of it in `mbo_fg`. FG-ARI ignores the background and forgives slots that
# cut through it, so it should never stand alone. That is why the main metric of this task is `mbo_fg`.
#
# ## Look at single images
#
# A mean hides which images fail. `to_frame` has a row for each image, and `pictures` shows image, truth and
# prediction from best to worst.

# %%
rows = result.to_frame().sort_values("mbo_fg")
print(rows[["id", "mbo_fg", "fg_ari", "n_objects"]].head(3).to_string(index=False))

# %%
pictures = result.pictures(2, model=model)
pictures[0]

# %% [markdown]
# ## Does the noise matter?
#
# Slots start from noise, so another draw gives other masks. Score several draws before you believe the third decimal:

# %%
draws = evaluate(model, "clevrtex", limit=16, noise_seeds=(0, 1, 2), name="tiny-slots", progress=False)
by_seed = draws.to_frame().groupby("noise_seed")["mbo_fg"].mean()
print(by_seed.round(3).to_string())

# %% [markdown]
# ## Where to go from here
#
# - Put the class into a file `my_model.py` with a function `build`, and use the command line: `ocl-bench eval --model
#   my_model.py:build --task clevrtex`.
# - Score all 512 scenes, then `ocl-bench leaderboard --task clevrtex` shows your row among the others.
# - A claim that your *method* is better needs several trainings: [Read a leaderboard honestly](read_a_leaderboard.py)
#   explains why.
# - [Add a model](../add-a-model.md) has everything else: videos, dense features, checkpoints, model cards.
