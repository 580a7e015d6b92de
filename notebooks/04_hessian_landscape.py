# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags,mystnb,-all
#     formats: ipynb,py:percent
#     notebook_metadata_filter: kernelspec,jupytext,-jupytext.text_representation.jupytext_version
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 4. Is the loss of small groups steeper?
#
# Measure how steep and how curved the loss is for each {term}`group`, before and after rounding,
# and see whether that tells who is hurt.
#
# **The claim.** Bellam and Kim {cite}`bellam2025` say: minority groups have larger
# {term}`gradient norms <gradient norm>` and a larger {term}`top eigenvalue of the Hessian <top eigenvalue>`,
# quantization sharpens the landscape further, and {term}`training while quantized <QAT>` should flatten it
# again. That high gradient norms go with low accuracy is one of three signs of failure that they name. Tran
# and others {cite}`tran2022` prove a bound from which it would follow that such groups lose more.

# %% [markdown]
# ## Parameters
#
# Each can be set from outside: `fairq run 04 -p images_per_group=100`, or with papermill.

# %% tags=["parameters"]
setting: str = ""  # one of book/settings.yml: it fills what has its default below
dataset: str = "moths"  # what the images are of; `fairq data --help` lists what there is
root: str = ""  # where your copy of it lies; the moths need none
label: str = ""  # what is predicted; empty for the data set's own
group: str = ""  # whom to compare; empty for the data set's own
image_size: int = 32  # pixels along a side
train_images: int = 0  # at most so many to learn from; 0 for all, of moths 6000
test_images: int = 0  # at most so many to be tested on; 0 for all, of moths 6000
arch: str = "resnet18-16"  # the network
epochs: float = 0  # passes over the training images; 0 for the recipe's own
bit_widths: list[int] = [4, 3]  # widths from 2 to 16 to round the weights to
norm_bit_widths: list[int] = [2]  # further widths, at which only gradients and eigenvalues are looked at
seeds: list[int] = [0, 1, 2]  # one network is trained from each
images_per_group: int = 64  # images of each group to measure on; of all groups as many
split: str = "train"  # of which images: train or test
tol: float = 0.1  # how far from an eigenvalue its estimate may be, as a share of it

# %% tags=["hide-input"]
from fairq_book.chapters.landscape import asks, figures, norms, story, tables
from fairq_book.chapters.landscape.found import in_short
from fairq_book.experiments import settings
from fairq_book.experiments.gather import gather
from fairq_book.kit import earlier, measured, wording
from fairq_book.kit import figures as kit_figures
from fairq_book.kit import tables as kit_tables
from fairq_book.pages import claims

recipe = {"arch": arch, "epochs": epochs, "image_size": image_size}
limits = {"train_images": train_images, "test_images": test_images}
data = {"dataset": dataset, "root": root, "label": label, "group": group}
trained = settings.studies_of(setting, seeds=seeds, **data, **recipe, **limits)
widths = {"bit_widths": bit_widths, "norm_bit_widths": norm_bit_widths}
wanted = asks.Asks(**widths, images_per_group=images_per_group, split=split, tol=tol)

# %% [markdown]
# ## What we found

# %% tags=["hide-input"]
in_short()

# %% [markdown]
# **What this does not show.** A proof of what causes disparity: steepness, curvature and harm
# may have a common cause, such as images that are hard. And the curvature of a network at one point is not
# the shape of the valley: it speaks of small steps, and rounding to a few bits is a large one.

# %% [markdown]
# ## Whose loss?
#
# <!-- fold -->
#
# :::{margin} Top eigenvalue
# Where the loss is at its lowest, a step of length $t$ in the direction in which it bends fastest costs about
# $\lambda t^2 / 2$: with $\lambda = 200$, a step of 0.1 costs one nat.
# :::
#
# Let $J(\theta; D_a)$ be the mean cross entropy of a network with weights $\theta$ on images $D_a$ of group
# $a$. Three things are measured for each group, all with respect to the weights that quantization rounds:
#
# - the gradient norm $\lVert g_a \rVert$ with $g_a = \nabla_\theta J(\theta; D_a)$: how steep the loss is;
# - the top eigenvalue $\lambda_a$ of the Hessian $H_a = \nabla^2_\theta J(\theta; D_a)$: how fast it bends,
#   in the direction in which it bends fastest;
# - at a quantized network, the same at the rounded weights $\hat\theta$, as if they were free to move.
#
# The gradient of a mean over few images is longer by chance than over many, and the top eigenvalue larger.
# So every group is measured on as many images, drawn anew for each seed. They are training images unless
# `split` says otherwise, because the theory speaks of an optimum, and it is the training loss that training
# brought near one. The network is taken as it is used: batch norm keeps its statistics, and a ReLU bends
# nothing except where it switches, which no Hessian sees.

# %%
got = gather(trained, wanted)
ends = tables.ends(got.images, wanted.survey)
made = tables.make(got, ends)

# %% tags=["hide-input"]
groups, collapse = got.group_names, made["collapse"]
story.who_is_compared(ends, made["landscape"], split)

# %% [markdown]
# ## How steep, how curved
#
# For each network look first at the order of the groups, then at whether all of them move together.

# %% tags=["hide-input"]
kit_figures.around_by_treatment(made["around"], groups)

# %% [markdown]
# An eigenvalue is found by iteration (Lanczos), so one has to ask whether it was found. The residual
# $\lVert H v - \lambda v \rVert$ tells: some eigenvalue lies within that distance of $\lambda$, and mostly
# much nearer, because the error goes with the square of the residual.

# %% tags=["hide-input"]
story.eigenvalues_reached(made["landscape"])

# %% [markdown]
# Now what the claim is about: minorities, which are all groups but the largest, against the largest, at four
# bits. Beside them stands the smallest group by itself, which need not do as the others do. The networks are
# paired by their {term}`seed`, so what they have in common cancels. These {term}`intervals <interval>` cover
# other seeds, and with them other images.

# %% tags=["hide-input"]
ratios = made["to_majority"]
steeper = story.larger_for_minorities(ratios, "gradient_norm", ends, collapse, seeds=len(trained))
steeper

# %% tags=["hide-input"]
sharper = story.larger_for_minorities(ratios, "eigenvalue", ends, collapse, seeds=len(trained))
sharper

# %% tags=["hide-input"]
rises = story.sharpened_for_minorities(ratios, ends, collapse, seeds=len(trained))
rises

# %% [markdown]
# As many images for everyone does not make chance as large for everyone. On $n$ images,
# $\lVert g_a \rVert^2$ is on average too large by its {term}`sampling variance`, an $n$-th of the variance of
# the gradient of a single image, which is larger for a group whose images differ more. Products of gradients
# of different images are free of it. Their mean estimates the squared norm on all images there could be, and
# may be below zero. So there are no logarithms here: networks are averaged as they are, and a ratio is that
# of the means, with Fieller's interval {cite}`fieller1954`. The claim is judged above, by what was measured;
# look at whether it would fare alike here.

# %% tags=["hide-input"]
figures.steepness(made["steepness"], groups)

# %% tags=["hide-input"]
story.less_sampling(made["steepness"], made["steepness_ratios"], ends, collapse)

# %% [markdown]
# And all groups together: does rounding sharpen at all?

# %% tags=["hide-input"]
story.sharpens(made["to_full_precision"], ends, collapse, seeds=len(trained))

# %% [markdown]
# A network that is often wrong about a group has a large loss there, and far from its minimum a loss is
# seldom flat. So gradient norm and accuracy may well go opposite ways, and that is what the paper takes for
# a sign that quantization fails. Look whether it is so in full precision already.

# %% tags=["hide-input"]
story.steep_where_hard(made["with_loss"])

# %% tags=["hide-input"]
both = norms.norm_with_accuracy(norms.beside_accuracy(made["landscape"], made["accuracy_by_seed"]))
norms.high_where_wrong(both, made["collapse"], seeds=len(trained))

# %% [markdown]
# ## Size or difficulty?
#
# Is a loss steep because its group is small, or because its images are hard? Default moths cannot say, for
# their small groups differ in both. So here are networks of moths whose focal group is neither, small, hard,
# or both, while its four peers are alike; they were [measured before](../book/registered). Squared gradient
# norms are less their sampling, and those of the focal group in times those of its peers. The last two rows
# are what each of the two adds; their unit is the norm of peers in full precision where all groups are
# alike, and 0 is nothing.

# %% tags=["hide-input"]
kinds, inputs = norms.measured_kinds(), norms.measured_inputs()
norms.kinds_in_a_table(kinds)

# %% [markdown]
# And where the inputs of layers are rounded, alone or with the weights? The paper leaves that open. A
# gradient goes straight through such a rounding, as if it were not there.

# %% tags=["hide-input"]
norms.inputs_in_a_table(inputs)

# %% tags=["hide-input"]
norms.answers(kinds, inputs)

# %% [markdown]
# ## Do sharper groups generalize worse?
#
# <!-- fold -->
#
# The paper says so: a group whose loss is more curved should lose more from the images that were learned to
# those that were not. Look whether the order of the groups is the same.

# %% tags=["hide-input"]
story.sharper_generalize_worse(made["landscape"], made["generalization"], seeds=len(trained))

# %% [markdown]
# ## The whole spectrum
#
# <!-- fold -->
#
# The top eigenvalue is one of millions. Here are the others, for the network of the first seed, as far as a
# few products of Hessian and vector can show them. Look at how few directions lie away from zero, and
# whether some lie below it: there, the network is no minimum for the group.

# %% tags=["hide-input"]
figures.spectra(made["spectra"], groups)

# %% tags=["hide-input"]
story.how_far_out(made["spectra"])

# %% [markdown]
# ## On the way to the rounded weights
#
# <!-- fold -->
#
# Rounding, formula {eq}`rounding` of [the first chapter](01_disparity_baseline), moves the weights by
# $d = \hat\theta - \theta$. Walk that straight line, half a length beyond either end, and look at whether the
# loss rises as from the bottom of a valley, or whether it was never one.

# %% tags=["hide-input"]
figures.slices(made["slices"], groups)

# %% tags=["hide-input"]
story.along_the_way(made["slices"])

# %% [markdown]
# ## Does the bound tell who is hurt?
#
# What rounding costs a group is its excess loss $R_a = J(\hat\theta; D_a) - J(\theta; D_a)$. By Taylor's
# formula, up to a term of third order in $d$,
#
# $$R_a \;\approx\; \underbrace{g_a^\top d + \tfrac12\, d^\top H_a\, d}_{\text{the parabola}}
#   \;\le\; \underbrace{\lVert g_a \rVert \lVert d \rVert
#   + \tfrac12\, \lambda_a \lVert d \rVert^2}_{\text{the bound}},$$ (bound)
#
# with $g_a$ and $H_a$ at the original network. The bound supposes that $d$ points where the loss is steepest
# and most curved. The parabola asks where it does point. Look at the horizontal axes, and whether the points
# rise to the right.

# %% tags=["hide-input"]
figures.bound_against_excess(made["bounds"], groups)

# %% tags=["hide-input"]
story.how_tight(made["bounds"], made["ranks"])

# %% tags=["hide-input"]
ranked = story.bound_tells_who_is_hurt(made["bounds"], collapse, seeds=len(trained))
ranked

# %% [markdown]
# ## Part by part
#
# <!-- fold -->
#
# The bound {eq}`bound` for one part of the network at a time: only its weights are rounded, and $g_a$ and
# $\lambda_a$ are taken with respect to them alone. Look at whether the lower curves rise where the upper ones
# do.

# %% tags=["hide-input"]
figures.bound_by_part(made["part_bounds"], groups)

# %% tags=["hide-input"]
story.where_it_costs(made["part_bounds"], made["part_ranks"])

# %% [markdown]
# ## Does training while quantized flatten?
#
# <!-- fold -->
#
# If sharpness is what rounding does harm by, then training at the rounded weights (QAT) should lead to where
# the loss is flat. It trains for longer than the original was, which alone may flatten or sharpen.

# %% tags=["hide-input"]
flattened = story.training_flattens(made["to_rounded"], collapse, seeds=len(trained))
flattened

# %% [markdown]
# ## Verdict

# %% tags=["hide-input"]
wording.together(
    "The loss of minorities is steeper and more curved; rounding sharpens it further and training while "
    "quantized flattens it; and this tells who is hurt.",
    [steeper, sharper, rises, flattened, ranked],
)

# %% [markdown]
# **Next.** Enough of causes. The next chapter repairs, part by part, and says what each part costs.

# %% [markdown]
# **Try it yourself.** Is it size or difficulty that makes the loss steep? These moths differ in number only,
# so the smallest group is as easy as the others. It takes some minutes, for the networks are new:
#
# ```sh
# fairq run 04 -p dataset=moths-by-size
# ```
#
# And where a verdict gives no more than a bound, more seeds make it smaller:
# `fairq run 04 -p seeds='[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]'`.

# %% [markdown]
# What stands here is also a column of [the page of claims](../book/claims), beside what was measured on
# photographs.

# %% tags=["hide-input"]
here = measured.here(got, made)
here

# %% [markdown]
# ## On real faces
#
# <!-- fold -->
#
# The same on UTKFace at 64 pixels, from tables that are part of the book ([the page of
# claims](../book/claims) says who made them, and how).

# %% tags=["hide-input"]
faces = earlier.load("utkface")
around = kit_tables.around(faces["landscape"])
kit_figures.around_by_treatment(around, faces.groups)

# %% tags=["hide-input"]
story.eigenvalues_reached(faces["landscape"])

# %% tags=["hide-input"]
figures.bound_against_excess(faces["bounds"], faces.groups)

# %% tags=["hide-input"]
claims.judge("A3", faces)

# %% tags=["hide-input"]
claims.everywhere("A3", {"here": here} | earlier.every())

# %% tags=["hide-input"]
claims.judge("A4", faces)

# %% tags=["hide-input"]
claims.everywhere("A4", {"here": here} | earlier.every())

# %% tags=["hide-input"]
story.training_flattens(kit_tables.to_rounded(faces["landscape"]), faces["collapse"], seeds=faces.seeds)

# %% tags=["hide-input"]
claims.judge("Tran", faces)

# %% tags=["hide-input"]
claims.everywhere("Tran", {"here": here} | earlier.every())

# %% tags=["hide-input"]
claims.judge("A7c", faces)

# %% tags=["hide-input"]
claims.everywhere("A7c", {"here": here} | earlier.every())
