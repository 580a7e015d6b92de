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
# # 3. Do small groups live on small weights?
#
# Rounding does two things to weights: small ones become zero, and the others move a little.
# Do one without the other, and see which of the two costs whom.
#
# **The claim.** Bellam and Kim {cite}`bellam2025` say: the {term}`zero bin` of a uniform grid empties small
# weights, and these are weights that minorities need.

# %% [markdown]
# ## Parameters
#
# Each can be set from outside: `fairq run 03 -p width=4`, or with papermill.

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
bit_widths: list[int] = [8, 6, 5, 4, 3, 2]  # widths from 2 to 16 to round the weights to
seeds: list[int] = [0, 1, 2, 3, 4]  # one network is trained from each
width: int = 0  # the width to take apart; 0 for the narrowest that leaves the networks standing
layer: str = ""  # the layer whose weights are drawn; empty for the one with the most zeros
images_each: int = 200  # test images of each group for the interventions
images_each_layer: int = 75  # test images of each group where one layer at a time is touched
seeds_by_layer: int = 3  # networks for that, the first ones
outliers: list[int] = [4]  # how many times as loud one channel of each layer is made

# %% tags=["hide-input"]
from fairq_book.chapters.zero_bin import asks, figures, story, tables
from fairq_book.chapters.zero_bin.found import in_short
from fairq_book.experiments import settings
from fairq_book.experiments.gather import gather
from fairq_book.explorer.widget import Explorer
from fairq_book.kit import by_network, earlier, interventions, measured
from fairq_book.kit import figures as kit_figures
from fairq_book.pages import claims
from fairq_utils.treatments import ablations
from fairq_utils.treatments.treatment import Treatment

recipe = {"arch": arch, "epochs": epochs, "image_size": image_size}
limits = {"train_images": train_images, "test_images": test_images}
data = {"dataset": dataset, "root": root, "label": label, "group": group}
trained = settings.studies_of(setting, seeds=seeds, **data, **recipe, **limits)

# %% tags=["hide-input"]
sizes = {"images_each": images_each, "images_each_layer": images_each_layer, "seeds_by_layer": seeds_by_layer}
wanted = asks.Asks(bit_widths=bit_widths, width=width, layer=layer, outliers=outliers, **sizes)
got = gather(trained, wanted)
rounded = wanted.taken_apart(got)
made = tables.make(got, rounded)

# %% [markdown]
# ## What we found

# %% tags=["hide-input"]
in_short()

# %% tags=["hide-input"]
faces_why = by_network.load("utkface_why")
figures.two_grids(tables.two_grids(faces_why.table, faces_why.majority), "UTKFace")

# %% [markdown]
# **What this does not show.** A study of pruning, which trains again after it has zeroed weights:
# nothing is trained again here. And a loss that falls for a {term}`group` is no repair. When a network leans
# towards another answer, whoever has that label gains.

# %% [markdown]
# ## How full is the zero bin?
#
# :::{margin} Zero bin
# A layer whose largest weight is 0.3 has, at three bits, the step 0.1. All its weights between −0.05 and 0.05
# become zero.
# :::
#
# A symmetric grid of $b$ bits has the step $s = \max|w| / (2^{b-1} - 1)$, with the maximum taken over a
# layer: it is the {term}`scale` of formula {eq}`rounding` in [the first chapter](01_disparity_baseline). A
# weight becomes zero if it is nearer to zero than half a step. Were the weights of the layer
# Gaussian with standard deviation $\sigma$, the share of zeros would be
#
# $$P\left(|w| < \tfrac{s}{2}\right)
#   = \mathrm{erf}\left(\frac{\max|w| / \sigma}{2 \sqrt 2\,(2^{b-1} - 1)}\right),$$ (zero-share)
#
# so that one number of a layer, its largest weight in sigmas, would say it all.

# %% [markdown]
# Look down a column for layers that lose more than the others, and along a row for the width at which a
# layer empties.

# %% tags=["hide-input"]
figures.zero_shares(made["zero_bins"])

# %% [markdown]
# Here the same shares stand over the largest weight of the layer. The lines are formula {eq}`zero-share`:
# look for marks that leave theirs. [A network that you can quantize yourself](#quantize-yourself) counts
# the weights that become 0 while you take bits away.

# %% tags=["hide-input"]
figures.zero_share_by_peak(made["zero_bins"])

# %% tags=["hide-input"]
story.zero_bins(made["zero_bins"], made["zero_totals"])

# %% [markdown]
# ## One width, taken apart
#
# From here on one width is looked at. Unless you chose one, it is the narrowest at which the networks still
# use at least half of the classes that they used before: below it, they have {term}`collapsed <collapse>`,
# and whatever is said of groups is said of the one answer that is left.

# %% tags=["hide-input"]
story.what_is_taken_apart(rounded.name, got.smallest, made["collapse"])

# %% [markdown]
# This is a layer with its grid. Look at how much of the hill lies in the shaded bin, and how few weights
# need the outer values.

# %% tags=["hide-input"]
shown = wanted.layer or tables.emptiest_layer(made["zero_bins"], rounded)
figures.weight_histogram(got.networks(first=1)[0], shown, rounded)

# %% [markdown]
# Any other layer, at any width: choose *weights* ([more of this](09_explorer)).

# %% tags=["hide-input"]
of_first = got.networks(got.treatments("rounded"), first=1)
explorer = Explorer.of_predictions(got["rounded"], ["margin", "weights"], networks=of_first)
explorer.view = {"quantity": "weights"}
explorer

# %% [markdown]
# ## One half at a time
#
# :::{margin} Names of the rows
# After the width stands what was done: `int3-zeros` empties the zero bin of three bits, `int3-nonzeros`
# rounds all the rest, `int3` does both. Each is a {term}`treatment`.
# :::
#
# Three interventions on the same networks. *Zeros*: only the zero bin is emptied, all other weights keep
# their exact values. *Nonzeros*: all other weights are rounded, and the small ones keep theirs. And both,
# which is plain rounding. Each is compared with full precision in pairs, the same network on the same
# images, by the loss (cross entropy, in nats). Loss is used because a group that is hardly ever
# recognised has no accuracy left to lose. Of each group equally many images are taken.

# %% [markdown]
# If the zero bin does the harm, the first row lies as far to the right as the last, and the middle row near
# the line.

# %% tags=["hide-input"]
changes = made["zero_changes"]
halves = [half.name for half in ablations.halves(rounded)]
figures.loss_by_treatment(changes, halves)

# %% tags=["hide-input"]
story.what_is_added(changes, halves, got.smallest, collapse=made["zero_collapse"])

# %% tags=["hide-input"]
story.halves_sum(changes, rounded.name, got.smallest)

# %% [markdown]
# ## Was it because they are small?
#
# Emptying the zero bin is a large change: many weights go at once. So as much is done to other weights:
#
# - *random*: in each tensor the same number of weights becomes zero, drawn at random. That takes away far
#   more, because larger weights are among them.
# - *norm*: weights drawn at random become zero until the change is as long as the zero bin's,
#   $\lVert\Delta w\rVert^2 = \sum_{\text{zero bin}} w^2$ in each tensor. By number these are few.
# - *global*: the same number in all, but the smallest of the whole network. Tensor by tensor, the
#   smallest are the zero bin itself, so that control would be no control.
#
# If small weights matter because of what they do, *zeros* costs more than *norm*. If only the size of the
# change matters, the two cost alike.

# %% tags=["hide-input"]
controls = [control.name for control in ablations.controls(rounded)]
figures.loss_by_treatment(changes, [halves[0], *controls])

# %% tags=["hide-input"]
story.held_against(made["zero_controls"], halves[0], got.smallest)

# %% tags=["hide-input"]
story.length_or_smallness(made["zero_controls"], rounded.name, got.smallest)

# %% [markdown]
# ## Grids that keep small weights alive
#
# <!-- fold -->
#
# *midrise* has its values at half steps, $\pm\frac s2, \pm\frac{3s}2, \dots$: no weight becomes zero, and all
# move about as far as before. *codebook* puts the values where k-means finds the weights, *pot* at powers of
# two, dense near zero. *mse* narrows {term}`the range <MSE range>` until the squared error is least,
# *channel* has a range {term}`for each output channel <per channel>`, and *lsq* starts from the step that
# learned steps start from, without any learning.
#
# If empty bins are the harm, the fewer zeros a grid leaves, the further left its row should lie.

# %% tags=["hide-input"]
grids = [rounded, *ablations.other_grids(rounded)]
notes = tables.zero_notes(grids, got.networks(grids, first=1))
figures.loss_by_treatment(changes, list(notes), list(notes.values()))

# %% tags=["hide-input"]
story.held_against(made["zero_grids"], rounded.name, got.smallest, notes=notes)

# %% [markdown]
# ## The same function on another grid
#
# What does a width mean? Take the output channel that holds a layer's largest weight, make it louder, and
# let its batch norm make it small again. The network computes what it computed before. But the
# step of a grid for the whole tensor is now so many times as wide, for every other channel; a grid
# for each channel does not change at all. The control has steps as wide and no loud
# channel. Batch norm statistics are taken again, so that what is left is the grid's. Over the width of the
# step, all widths lie on one curve: that is arithmetic, and it says that bits are not what counts.

# %% tags=["hide-input"]
figures.two_grids(made["two_grids"], "The first networks of this page")

# %% [markdown]
# The same on the twenty networks that were [measured before](../book/registered), with factors up to 16, and
# with the old statistics beside.

# %% tags=["hide-input"]
why = by_network.load("moths_why")
figures.two_grids(tables.two_grids(why.table, why.majority), why.title)

# %% [markdown]
# How far do real layers reach? This is the largest weight of each layer of the networks of this page, in
# standard deviations of its weights, and beside it what as many Gaussian weights would reach.

# %% tags=["hide-input"]
reach = tables.reach_by_layer(got.networks())
story.reach_in_a_table(reach)

# %% tags=["hide-input"]
story.how_far_layers_reach(reach, networks=len(trained))

# %% [markdown]
# ## The zero bin, put right
#
# <!-- fold -->
#
# Rounding may shift whole classes, and so may the controls above. So here the zero bin and its controls are
# shown as they are, with batch norm statistics taken again, and with {term}`class offsets <class offset>`.
# If the claim holds, *zero bin alone* stays left of the line in all three, and *as much, of the largest*
# right of it.

# %% tags=["hide-input"]
kit_figures.dots_of_contrasts(tables.zero_bin_put_right(why), "of the zero bin and its controls")

# %% tags=["hide-input"]
interventions.answered([why, faces_why], "03_zero_bin_sparsity")

# %% [markdown]
# ## Layer by layer
#
# <!-- fold -->
#
# All layers at once may be too much to see anything. So the zero bin of one layer is emptied and all others
# are left alone, with the same two random controls in that layer. To keep it short this takes fewer images
# and networks. Look for layers in which the smallest group stands right of the rest: and whether it
# does so in the first panel only, or in all three.

# %% tags=["hide-input"]
figures.loss_by_layer(made["zero_layers"])

# %% tags=["hide-input"]
few = len(trained[:seeds_by_layer])
story.layer_by_layer(made["zero_layers"], made["zero_layer_signs"], got.smallest, seeds=few)

# %% [markdown]
# ## Verdict
#
# The claim has four parts, and needs all of them.

# %% tags=["hide-input"]
story.small_weights_are_needed(
    made["zero_parts"], changes, made["zero_collapse"], rounded.name, seeds=len(trained)
)

# %% [markdown]
# **Next.** What counts is how far a step moves the weights. Who feels it most should be whoever stands on the
# steepest ground: the next chapter looks at the loss around them.

# %% [markdown]
# **Try it yourself.** Take another width apart; no network is trained for it:
#
# ```sh
# fairq run 03 -p width=4
# ```

# %% [markdown]
# What stands here is also a column of [the page of claims](../book/claims), beside what was measured on
# photographs.

# %% tags=["hide-input"]
here = measured.here(got, made, take_apart=rounded.bits)
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
figures.zero_shares(faces["zero_bins"])

# %% tags=["hide-input"]
story.zero_bins(faces["zero_bins"], tables.zero_totals(faces["zero_bins"]))

# %% [markdown]
# One width taken apart: the halves of rounding, and then as much done to other weights.

# %% tags=["hide-input"]
apart = Treatment(faces.take_apart)
halves, controls = ablations.halves(apart), ablations.controls(apart)
figures.loss_by_treatment(faces["zero_changes"], [half.name for half in halves])

# %% tags=["hide-input"]
figures.loss_by_treatment(faces["zero_changes"], [one.name for one in (halves[0], *controls)])

# %% tags=["hide-input"]
story.held_against(faces["zero_controls"], halves[0].name, faces.ends.smallest)

# %% tags=["hide-input"]
story.held_against(faces["zero_grids"], apart.name, faces.ends.smallest)

# %% [markdown]
# The zero bin put right, on networks of `resnet18-16`.

# %% tags=["hide-input"]
kit_figures.dots_of_contrasts(
    tables.zero_bin_put_right(faces_why), "of the zero bin and its controls, on UTKFace"
)

# %% tags=["hide-input"]
claims.judge("A5", faces)

# %% tags=["hide-input"]
claims.everywhere("A5", {"here": here} | earlier.every())
