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
# # 2. Do the outputs flatten?
#
# Look at what a network says before it decides: the {term}`logits <logit>`. See how rounding the
# weights changes them, and find out by intervention how much of the harm that change explains.
#
# **The claim.** Bellam and Kim {cite}`bellam2025` say: quantization lowers the variance of the logits, as a
# high temperature does; the softmax flattens, examples move towards the decision boundary, and the loss
# grows, most for minorities. That it is nullified at three and at two bits is one of three signs of failure
# that they name.

# %% [markdown]
# ## Parameters
#
# Each can be set from outside: `fairq run 02 -p bit_widths='[6, 3]'`, or with papermill.

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
controls: list[str] = ["fp16", "bf16"]  # treatments that leave weights as fine as they are
activation_bits: list[int] = [8, 4]  # widths to which inputs of layers are rounded, alone

# %% tags=["hide-input"]
from fairq_book.chapters.logits import asks, figures, story, tables
from fairq_book.chapters.logits.found import in_short
from fairq_book.experiments import settings
from fairq_book.experiments.gather import gather
from fairq_book.explorer.widget import Explorer
from fairq_book.kit import by_network, earlier, interventions, measured, wording
from fairq_book.kit import figures as kit_figures
from fairq_book.pages import claims

recipe = {"arch": arch, "epochs": epochs, "image_size": image_size}
limits = {"train_images": train_images, "test_images": test_images}
data = {"dataset": dataset, "root": root, "label": label, "group": group}
trained = settings.studies_of(setting, seeds=seeds, **data, **recipe, **limits)

# %% [markdown]
# ## What we found

# %% tags=["hide-input"]
in_short()

# %% tags=["hide-input"]
faces_why = by_network.load("utkface_why")
figures.waterfall(tables.parts_of_groups(faces_why, "int4-mse"), "UTKFace: int4, range of least error")

# %% [markdown]
# **What this does not show.** A finding about how sure one should be of a {term}`group`. Logits
# say how sure a network is, right or wrong, and a group's loss can fall because errors are made with less
# confidence.

# %% [markdown]
# ## From logits to loss
#
# <!-- fold -->
#
# :::{margin} Temperature
# Of the logits 3 and 1 the softmax at $T = 1$ makes 88 and 12 %, at $T = 2$ it makes 73 and 27 %. The first
# stays the answer, less surely.
# :::
#
# For one image the network gives a logit $z_k$ for each of $K$ classes. The softmax at temperature $T$ makes
# probabilities of them,
#
# $$p_k = \frac{e^{z_k / T}}{\sum_j e^{z_j / T}}, \qquad T = 1 \text{ unless said otherwise},$$ (softmax)
#
# and the loss is $-\log p_y$ for the label $y$. Four numbers describe an answer:
#
# - **logit variance** $\frac{1}{K} \sum_k (z_k - \bar z)^2$, over the classes of one image;
# - **confidence**, the largest $p_k$;
# - **{term}`margin`**, the label's logit less the largest other one. At 0 lies the decision boundary, below
#   it the answer is wrong;
# - **loss**.
#
# A temperature divides all logits by $T$ and their variance by $T^2$. "Logit variance" may also be read as
# the spread of one logit over many images. The claim is about a single softmax that flattens, so this page
# takes the variance within an image. An average over images is that of a *typical* image, a geometric mean:
# in the plain mean a few images with very large logits outweigh the rest.

# %%
fine = {"controls": controls, "activation_bits": activation_bits}
got = gather(trained, asks.Asks(bit_widths=bit_widths, **fine))
made = tables.make(got)

# %% [markdown]
# ## Does the variance fall?
#
# Each image is compared with itself in the network of the same {term}`seed`. Look for
# {term}`intervals <interval>` that stay below the dotted line.

# %% tags=["hide-input"]
figures.variance_left(made["variance_left"])

# %% [markdown]
# An average can hide two movements. Here are all images: look whether whole curves move to the left, or only
# spread.

# %% tags=["hide-input"]
densities = made["densities"]
figures.ridges(densities[densities["measure"] == "logit_variance"])

# %% tags=["hide-input"]
falls = story.variance_falls(made["variance_left"], made["collapse"], seeds=len(trained))
falls

# %% tags=["hide-input"]
story.logits_are_nullified(made["variance_left"], seeds=len(trained))

# %% [markdown]
# ## Towards the boundary
#
# If the softmax flattens, confidence falls, margins shrink towards 0, and loss changes. Look whether the
# groups move alike.

# %% tags=["hide-input"]
measures = ("logit_variance", "confidence", "margin", "loss")
figures.measures_by_treatment(made["answers"], measures=measures)

# %% [markdown]
# The boundary itself is the vertical line below. Look for mass that gathers at it (a change of scale) and for
# mass that crosses it (a change of answer). How a boundary moves under single images can be watched in [a
# network that you can quantize yourself](#quantize-yourself): take bits away.

# %% tags=["hide-input"]
figures.ridges(densities[densities["measure"] == "margin"])

# %% tags=["hide-input"]
changes = made["answer_changes"]
story.towards_the_boundary(changes)

# %% [markdown]
# Look for yourself: choose a quantity and groups, and move the slider ([more of this](09_explorer)).

# %% tags=["hide-input"]
Explorer.of_predictions(got["rounded"], ["margin", "logit_variance", "confidence", "loss"])

# %% [markdown]
# ## Whose loss grows?
#
# <!-- fold -->
#
# The claim says: most that of minorities. Here the growth of the smallest group's loss is set against that of
# all others together, image by image and seed by seed. Where networks have collapsed onto one answer, a loss
# only says how far a group is from that answer; those widths are set apart.

# %% tags=["hide-input"]
beyond = made["loss_beyond_others"]
grows = story.loss_falls_on(beyond, changes, made["collapse"], seeds=len(trained))
grows

# %% [markdown]
# ## Intervention: the original, heated
#
# If lower variance does the harm, then it should do the same harm without any rounding. So each *original* is
# given the temperature at which its typical variance is that of the quantized network of the same seed,
#
# $$T = \exp\Big(\tfrac12\, \overline{\log v - \log \hat v}\Big),$$
#
# with $v$ and $\hat v$ the variances of an image before and after, and the mean over the images. Dividing by
# $T > 0$, as in {eq}`softmax`, keeps the order of the logits, so by arithmetic no answer changes, whatever
# $T$ is. Loss is another matter. Look how far the two lines part.

# %% tags=["hide-input"]
figures.measures_by_treatment(made["arms_heated"], by="arm")

# %% tags=["hide-input"]
explained = made["loss_explained"]
explains = story.temperature_explains(explained, changes, made["collapse"], seeds=len(trained))
explains

# %% [markdown]
# ## Intervention: the quantized network, rescaled
#
# <!-- fold -->
#
# The other way round: each quantized network's logits are multiplied by the one factor that gives them back
# the typical variance of its original. Does anything but the loss come back? Accuracy cannot, for the same
# reason. And where answers are wrong, more confidence makes loss worse.

# %% tags=["hide-input"]
figures.measures_by_treatment(made["arms_rescaled"], by="arm")

# %% tags=["hide-input"]
story.what_a_factor_mends(changes, made["changes_rescaled"])

# %% [markdown]
# ## Intervention: new batch norm statistics
#
# Batch norm divides by the standard deviation that activations had while the network was trained. Rounded
# weights give other activations, and the old statistics scale them wrongly, layer after layer: logits can
# shrink for this reason alone. So the statistics are taken again from at most 1000 training images, at the
# three narrowest widths. No weight changes, and in a network without batch norm nothing does. Look how much
# of accuracy returns, which a factor could not touch.

# %% tags=["hide-input"]
figures.measures_by_treatment(made["arms_statistics"], by="arm")

# %% tags=["hide-input"]
story.what_statistics_mend(made["regained"], made["changes_statistics"], made["variance_statistics"])

# %% [markdown]
# ## What each group loses, taken apart
#
# Batch norm is one thing that can be put right without labels. A shift of whole classes is another: a
# {term}`class offset` makes each as probable as it was in full precision. A temperature is the
# third. What is left is what rounding did to single images. Full precision is put right as well, and counts
# against it. The steps do not commute, so each has the mean of its shares over all their orders. A
# temperature changes no answer: its share of accuracy is nothing by arithmetic, and only of loss may it have
# one.

# %% tags=["hide-input"]
why = by_network.load("moths_why")
figures.waterfall(tables.parts_of_groups(why, "int4-mse"), f"{why.title}: int4 with the range of least error")

# %% tags=["hide-input"]
figures.waterfall(tables.parts_of_groups(why, "int3"), f"{why.title}: int3")

# %% [markdown]
# The same of the loss, in nats, to the right where a group loses. Here a temperature may have a share.

# %% tags=["hide-input"]
loss = tables.parts_of_groups(why, "int4-mse", "loss")
figures.waterfall(loss, f"{why.title}: int4 with the range of least error", unit="nats")

# %% [markdown]
# Whose images are the statistics of? Here nothing is done to weights in the first panel, and they are
# rounded in the others.

# %% tags=["hide-input"]
kit_figures.dots_of_contrasts(tables.whose_statistics(why), "by whose images batch norm statistics are of")

# %% [markdown]
# ## Activations, alone and with weights
#
# What if the inputs of layers are rounded? The paper leaves that open and expects a larger disparity. Ranges
# are those of 1,000 training images, the whole of them unless a row says otherwise; *dynamic* takes
# each image's own.

# %% tags=["hide-input"]
kit_figures.dots_of_contrasts(tables.rounded_inputs(why), "by the widths of weights and of activations")

# %% tags=["hide-input"]
interventions.answered([why, faces_why], "02_logit_variance_collapse")

# %% [markdown]
# ## The break condition
#
# <!-- fold -->
#
# :::{margin} Names on the axis
# `fp16` and `bf16` keep weights in half precision. `a8` and `a4` leave weights alone and round what goes into
# each layer, to eight and to four bits.
# :::
#
# If coarse weights are the cause, then the variance must stand where weights are fine: in half precision, and
# where only the inputs of layers are rounded. Look whether all marks sit at the dotted line.

# %% tags=["hide-input"]
figures.variance_left(made["variance_controls"])

# %% tags=["hide-input"]
story.variance_stands(made["variance_controls"], seeds=len(trained))

# %% [markdown]
# ## Which answers flip?
#
# <!-- fold -->
#
# Images near the boundary need only a small push. The test images of each original are cut into tenths by the
# gap between its two largest logits. Look whether flips stay in the nearest tenths, or reach images on which
# the original was sure.

# %% tags=["hide-input"]
narrowest = made["flips"]["treatment"].unique()[-3:]
flips = made["flips"][made["flips"]["treatment"].isin(narrowest)]
figures.flips_by_nearness(flips)

# %% tags=["hide-input"]
story.who_flips(flips, smallest=got.smallest)

# %% [markdown]
# ## Verdict

# %% tags=["hide-input"]
wording.together(
    "Quantization lowers logit variance, and that is why loss grows, most for minorities.",
    [falls, grows, explains],
)

# %% [markdown]
# **Next.** If flattening is not it, is it that small weights become zero, and that somebody needs them? That
# is the next chapter.

# %% [markdown]
# **Try it yourself.** Other widths and other controls take a minute:
#
# ```sh
# fairq run 02 -p bit_widths='[5, 4]' -p controls='["fp8"]' -p activation_bits='[6, 3]'
# ```

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
figures.variance_left(faces["variance_left"])

# %% tags=["hide-input"]
figures.measures_by_treatment(faces["answers"], measures=measures)

# %% tags=["hide-input"]
spread = faces["densities"]
figures.ridges(spread[spread["measure"] == "margin"])

# %% [markdown]
# The original, heated to the variance of the quantized network, beside it; then the quantized network with
# new batch norm statistics; and the break condition, where weights stay fine.

# %% tags=["hide-input"]
figures.measures_by_treatment(faces["arms_heated"], by="arm")

# %% tags=["hide-input"]
figures.measures_by_treatment(faces["arms_statistics"], by="arm")

# %% tags=["hide-input"]
story.what_statistics_mend(faces["regained"], faces["changes_statistics"], faces["variance_statistics"])

# %% tags=["hide-input"]
story.variance_stands(faces["variance_controls"], seeds=faces.seeds)

# %% [markdown]
# What each group loses, taken apart, on networks of `resnet18-16`; whose images statistics are of;
# and activations.

# %% tags=["hide-input"]
figures.waterfall(tables.parts_of_groups(faces_why, "int3"), "UTKFace: int3")

# %% tags=["hide-input"]
kit_figures.dots_of_contrasts(tables.whose_statistics(faces_why), "by whose images statistics are of")

# %% tags=["hide-input"]
kit_figures.dots_of_contrasts(tables.rounded_inputs(faces_why), "by both widths, on UTKFace")

# %% tags=["hide-input"]
claims.judge("A2", faces)

# %% tags=["hide-input"]
claims.everywhere("A2", {"here": here} | earlier.every())

# %% tags=["hide-input"]
claims.judge("A7b", faces)

# %% tags=["hide-input"]
claims.everywhere("A7b", {"here": here} | earlier.every())
