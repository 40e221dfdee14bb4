# %% [markdown]
# # Your own data in ten minutes
#
# You have images with masks, and want to score models on them. You need two folders and a card of a dozen lines. This
# tutorial makes a small data set so that it can run anywhere; put your own files in its place.
#
# [This page as a notebook](your_own_data.ipynb)
#
# ## Two folders
#
# Images go into one folder, masks into another, with the same names. A mask is a PNG with one integer for each pixel:
#
# | number | meaning |
# |---|---|
# | 0 | background |
# | 255 | void: nobody annotated this pixel, so it does not count |
# | any other | an object; each object has a number of its own |
#
# Here are eight pictures of coloured discs and boxes on a noisy ground.

# %%
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ocl_bench import evaluate
from ocl_bench.metrics import compute

folder = Path(tempfile.mkdtemp()) / "my-images"  # for your own data: Path("my-images")
(folder / "images").mkdir(parents=True)
(folder / "masks").mkdir()

generator = np.random.default_rng(0)
for number in range(8):
    ground = generator.normal(110, 12, (96, 128, 3)).clip(0, 255).astype(np.uint8)
    image, mask = Image.fromarray(ground), Image.new("L", (128, 96), 0)
    for label in range(1, 4):
        left, top = (int(value) for value in generator.integers(0, (96, 64)))
        box = (left, top, left + 30, top + 30)
        draw = "ellipse" if generator.random() < 0.5 else "rectangle"
        colour = tuple(int(value) for value in generator.integers(0, 256, 3))
        getattr(ImageDraw.Draw(image), draw)(box, fill=colour)
        getattr(ImageDraw.Draw(mask), draw)(box, fill=label)
    ImageDraw.Draw(mask).rectangle((0, 0, 127, 3), fill=255)  # the top rows are not annotated
    image.save(folder / "images" / f"picture-{number}.png")
    mask.save(folder / "masks" / f"picture-{number}.png")

# %% [markdown]
# ## A card
#
# The card says where the data are and how to score them. `input` is the side of the images that a model gets (unless
# it wants another), `score_at` the side at which masks are compared. `crop: center-1.0` takes the largest central
# square.

# %%
card = folder.parent / "my-task.yaml"
card.write_text("""
name: my-task
version: 1
family: discovery
title: Discs and boxes
data:
  reader: folder
  split: all
protocol: {crop: center-1.0, input: 128, score_at: 96, background: 0, void: drop}
metrics: [mbo_fg, ari, fg_ari, miou_fg]
main: mbo_fg
""")

# %% [markdown]
# ## Score a model
#
# This is one call. On the command line it is `ocl-bench eval --model kmeans --task my-task.yaml --data-root
# my-images`.

# %%
result = evaluate("kmeans", card, data_root=folder, progress=False)
print(result)

# %% [markdown]
# The result says `data: supplied`. Such results are never ranked beside those on official data, or on the scenes that
# the suite renders. If one of your files were broken, it would be named, counted as failed, and left out of the mean.
#
# ## Find out whether your masks are read as you meant them
#
# Three quick checks catch most mistakes in a new data set:
#
# 1. The `oracle` predicts the truth. It must score 1; anything less means that objects vanish on the way, for example
#    because they are tiny at `score_at`.
# 2. The number of objects must be what you expect. Anti-aliased or JPEG-compressed masks show up as far too many.
# 3. Look at the pictures.

# %%
oracle = evaluate("oracle", card, data_root=folder, progress=False)
objects = oracle.to_frame()["n_objects"]
print("oracle:", oracle.metrics["mbo_fg"], " objects per image:", objects.min(), "to", objects.max())

# %%
result.pictures(2)[0]

# %% [markdown]
# ## Masks instead of a model
#
# Perhaps you only have predicted masks, from any other program. Then no model is needed. On files, use `ocl-bench
# score --task my-task.yaml --masks predicted/ --data-root my-images`; on arrays, use `compute`. It takes integer
# label maps (B, H, W). Here, too, 255 is void.

# %%
truth = np.stack([np.asarray(Image.open(path)) for path in sorted((folder / "masks").iterdir())])
halves = np.zeros_like(truth)
halves[:, :, 64:] = 1  # a "prediction" that knows nothing: left half, right half

scores = compute(["mbo_fg", "fg_ari"], truth, halves)
for name, (value, valid) in scores.items():
    print(f"{name:7} {value[valid].mean():.3f} over {valid.sum()} images")

# %% [markdown]
# ## Where to go from here
#
# - [Data](../data.md#your-own-images) has all options: other folder names, lists of ids, colour masks, COCO JSON,
#   LabelMe files.
# - [Videos](../video.md#your-own-videos) work the same way, with a folder for each video.
# - `ocl-bench new task NAME` writes a card, example images, and a test that tells whether all of your files can be
#   read.
