# %% [markdown]
# # Read a leaderboard honestly
#
# A leaderboard invites one question, *who is first?*, and usually answers it wrongly. This tutorial takes the
# committed results of this repository and asks better ones: is the difference real, is it about the method, is the
# metric telling, and are these rows comparable at all?
#
# [This page as a notebook](read_a_leaderboard.ipynb)
#
# ## All results of a task

# %%
from ocl_bench import compare, load_results

results = load_results(task="clevrtex")  # the committed results, and your own
# Only those that scored all images:
results = results.filter(lambda result: result.data.limit is None, data="embedded")
frame = results.to_frame()
main = frame[frame["main"]]
board = main.groupby(["model", "role", "supervision"])["value"].agg(["mean", "std", "count"])
print(board.sort_values("mean", ascending=False).round(3).to_string())

# %% [markdown]
# `count` is the number of *trainings* of a model, each with another seed. `std` is the deviation between them. Rows
# with a count of 1 have been trained once, or are not trained at all.
#
# ## 1. Are the rows comparable?
#
# Read the columns `role` and `supervision` before any number.
#
# - A **floor** knows nothing about objects, a **ceiling** knows the truth. Neither competes; they are the ends of the
#   ruler.
# - `dias` stands on an encoder that learnt from boxes, `dias-label-free` on one that saw no labels. Their difference
#   is that of two encoders, not of two methods.
# - All these scenes are rendered (`data: embedded`). They say how these small models compare *here*, and nothing
#   about the published models on photographs.

# %%
ranked = main[~main["role"].isin(["floor", "ceiling"])]
for supervision, rows in ranked.groupby("supervision"):
    print(f"{supervision:6}", ", ".join(sorted(set(rows["model"]))))

# %% [markdown]
# ## 2. Is the difference real?
#
# Every value has an interval that says how far it would move with other images. It is tempting to compare two such
# intervals. It is also wrong, since both models saw the *same* images: what is hard for one is hard for the other.
# The interval of the **paired difference** is much narrower.

# %%
single = main[(main["model"].isin(["dias", "fps-features"])) & (main["training_seed"].fillna(0) == 0)]
print(single[["model", "value", "low", "high"]].to_string(index=False))

(paired,) = compare("dias:0", "fps-features", "clevrtex", "mbo_fg")
print(f"difference {paired.difference:+.3f} [{paired.low:+.3f}, {paired.high:+.3f}]")

# %% [markdown]
# ## 3. Is it about the method, or about one training?
#
# The paired interval speaks about two *checkpoints*. Train again with another seed and the order may turn. A claim
# about a method needs several trainings of each side. Here the rule is: seeds are paired, images and seeds are drawn
# together in a bootstrap, the interval excludes 0, all pairs agree in sign, and p is corrected for the number of
# questions (Holm).

# %%
for other in ("slot-attention", "slot-attention-merged", "fps-features"):
    for row in compare("dias", other, "clevrtex", "mbo_fg,ari"):
        interval = f"{row.difference:+.3f} [{row.low:+.3f}, {row.high:+.3f}]"
        print(f"dias - {other:21}  {row.metric:6}  {interval}  {row.verdict}")

# %% [markdown]
# Two rows deserve a second look.
#
# - `slot-attention-merged` is plain slot attention whose slots are merged at evaluation. It is far ahead of
#   `slot-attention`, so most of the gain of `dias` over slot attention comes from merging, and only the rest from its
#   training. Without that control the board would have told another story.
# - `fps-features` is a floor: farthest-point clustering of the very tokens that `dias` gets. It is level with `dias`
#   in ARI. *Undecided* is a result, and it belongs into the paper.
#
# ## 4. Does the metric measure what you care about?
#
# A grid of fixed rectangles never looks at an image. See what each metric says of it.

# %%
values = frame.pivot_table(index="model", columns="metric", values="value")
print(values.loc[["grid", "kmeans", "dias"], ["mbo_fg", "ari", "fg_ari"]].round(3).to_string())

# %% [markdown]
# FG-ARI gives the grid more than half, as it only counts pixels of objects and large cells hold whole objects. mBO
# and ARI see through it. Report FG-ARI beside another metric, never alone.
#
# ## 5. How many comparisons did you make?
#
# With twenty models and six metrics, something is "significant" by chance. Choose the metric before you look (the
# card names a main metric), and count every comparison. Asking for all metrics at once makes each p larger:

# %%
control = "slot-attention-merged"
(alone,) = compare("dias", control, "clevrtex", "mbo_fg")
together = {row.metric: row.p_holm for row in compare("dias", control, "clevrtex", "all")}
print(f"p of mbo_fg: {alone.p_holm:.4f} alone, {together['mbo_fg']:.4f} among {len(together)} metrics")

# %% [markdown]
# ## A checklist
#
# 1. Same signature, same data, same supervision, same privilege?
# 2. Is the interval of the *paired difference* clear of 0?
# 3. At least three trainings of each method, with the same sign in every pair?
# 4. Is it ahead of the floor on its own features, and of the control without its new part?
# 5. Was the metric chosen before looking?
#
# `ocl-bench compare A B --task TASK` answers 2 and 3 on the command line, and [Comparisons and claims](../compare.md)
# explains each column. [Boards](../boards.md#how-rows-rank) says how rows are ranked.
