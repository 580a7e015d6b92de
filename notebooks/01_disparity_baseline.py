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
# # 1. Who pays?
#
# Take a network that was trained in full precision, round its weights to fewer and fewer
# bits, and see what each {term}`group` of images loses.
#
# **The claim.** Bellam and Kim {cite}`bellam2025` say: with fewer bits the gap between the best and the
# worst served group grows, with a jump between eight bits and four. The jump is one of three signs of
# failure that they name; the second chapter and the fourth look at the other two.

# %% [markdown]
# ## Parameters
#
# Each can be set from outside: `fairq run 01 -p bit_widths='[6, 3]'`, or with papermill.

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
weight_range: list[str] = ["mse", "channel", "mse-channel"]  # other ways to choose the range
grid_bit_widths: list[int] = [4, 3, 2]  # widths at which they are compared
moth_seeds: list[int] = []  # seeds of the last section; empty for those that are shipped
moth_treatments: list[str] = ["int4", "int3-mse-channel"]  # what is done to their networks
moth_train_images: int = 2000  # images that they learn from; of what is shipped as many

# %% tags=["hide-input"]
from fairq_book.chapters.disparity import asks, figures, story, tables
from fairq_book.chapters.disparity.found import in_short
from fairq_book.experiments import settings
from fairq_book.experiments.gather import gather
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
kit_figures.dots_of_contrasts(tables.ranges(faces_why), "by the range of the weights, on UTKFace")

# %% [markdown]
# **What this does not show.** Anything about people. The default images are
# [moths](../book/data/moths), drawn by code, so that the size and the difficulty of each group are known.
# On other data the page says what these networks do with these labels, no more.

# %% [markdown]
# ## Who is in the data
#
# First the images, larger than the network sees them, then how many there are.

# %% tags=["hide-input"]
figures.contact_sheet(trained[0].dataset)

# %% tags=["hide-input"]
of_images = {"weight_range": weight_range, "grid_bit_widths": grid_bit_widths}
of_moths = {"moth_seeds": moth_seeds, "moth_treatments": moth_treatments}
wanted = asks.Asks(bit_widths=bit_widths, **of_images, **of_moths, moth_train_images=moth_train_images)
got = gather(trained, wanted)
figures.group_sizes(got.sizes)

# %% tags=["hide-input"]
story.who_is_there(got["rounded"][0])

# %% [markdown]
# ## The networks, and what they answer
#
# <!-- fold -->
#
# One network is trained from each {term}`seed`. Then its weights are rounded: every convolution and linear
# layer, symmetrically, with one {term}`scale` for a {term}`whole tensor <per tensor>`, taken from its
# {term}`largest weight <abs-max range>`. At $b$ bits a weight $w$ becomes
#
# $$\hat w = s \cdot \mathrm{round}(w / s), \qquad s = \frac{\max |w|}{2^{b-1} - 1}.$$ (rounding)
#
# Nothing is trained again. Biases, normalisation and activations stay as they are.

# %%
as_quick = {"arch": arch, "epochs": epochs, "test_images": test_images}
moths = gather(wanted.moths(**as_quick), wanted.of_moths)
made = tables.make(got, moths)

# %% [markdown]
# ## Accuracy of each group
#
# :::{margin} Names on the axis
# `fp32` is the network as it was trained, `int4` the same with its weights rounded to four bits. What was
# done to a network is called a {term}`treatment`.
# :::
#
# Look for lines that part: where the lines stay parallel, everybody pays alike.

# %% tags=["hide-input"]
figures.accuracy_by_treatment(made["accuracy"])

# %% [markdown]
# Who pays is asked of every group at once, not only of the one that seems to lose most. Each network gives
# one change, on test images of its own, so these {term}`intervals <interval>` cover other networks, other
# images and another split, and at each width those of the groups hold together. Beside the groups stands
# one question that was fixed before: the mean change of all groups but the largest, minus the change of the
# largest.

# %% tags=["hide-input"]
story.who_pays(made["accuracy"], made["change_by_network"], made["collapse"], got.majority)

# %% [markdown]
# Where group and label coincide, the accuracy of a group is a recall, and a network can raise it by giving
# that label to everybody. So precision and F1 stand beside it at the narrowest width at which networks stand,
# before and after, with the images that are won and lost: means over networks.

# %% tags=["hide-input"]
story.won_and_lost(made["answers"], made["collapse"])

# %% [markdown]
# ## On other moths, and in a wider network
#
# <!-- fold -->
#
# Is all this so because these moths are as they are, or because the network is small? And do other networks
# say the same? Four settings stand beside it, each with seeds of its own: forty more of the
# same networks, a network of four times the channels, and moths whose Others are harder, and easier, to tell.
# Their answers are shipped with the book; only *this page* was computed on the machine that built it.

# %% tags=["hide-input"]
there = {settings.find_setting(name).title: settings.studies_of(name) for name in asks.BESIDE}
others = {title: gather(studies, asks.beside) for title, studies in there.items()}
contrasts = tables.contrasts({"This page": got} | others)
figures.contrasts(contrasts)

# %% tags=["hide-input"]
story.elsewhere(contrasts)

# %% [markdown]
# ## The gap
#
# :::{margin} FVO
# Groups that are told right in 91, 88 and 79 % of their images have an FVO of 12 points.
# :::
#
# {term}`FVO`, the fairness violation observed, is the highest group accuracy minus the lowest. It is a
# maximum minus a minimum, so noise alone makes it positive: the grey band says by how much, if all groups
# were served alike. The lower panel counts the classes that the networks still answer with. A network with
# one answer for everything has the largest FVO there is, and has singled out nobody.
#
# A maximum also grows when networks merely come to scatter more. So a change is read three times, in an order
# that was fixed before: the others against the largest group; FVO of each network, beside the gap of two
# groups that other networks named, and a rise that these do not share is a lottery over groups; and FVO of
# the average network, which the figure shows.
# [How the verdicts are reached](../book/procedures) says how often each word is wrong.

# %% tags=["hide-input"]
figures.violation_by_treatment(made["accuracy"], made["chance"], made["collapse"])

# %% tags=["hide-input"]
story.three_readings(made["readings"], made["change"], made["collapse"], got.majority)

# %% tags=["hide-input"]
grows = story.violation_grows(made["accuracy_by_seed"], made["collapse"], seeds=len(trained))
grows

# %% tags=["hide-input"]
jumps = story.gap_jumps(made["readings"], made["collapse"], got.majority, seeds=len(trained))
jumps

# %% [markdown]
# ## Disparity or collapse?
#
# <!-- fold -->
#
# What is each group taken for, at full precision and at the narrowest width? Disparity keeps most of the
# diagonal. Collapse fills a column.

# %% tags=["hide-input"]
figures.confusion(made["confusion"])

# %% tags=["hide-input"]
story.at_the_narrowest(made["accuracy"], made["collapse"], classes=len(got["rounded"][0].label_names))

# %% [markdown]
# ## Another grid, another story?
#
# <!-- fold -->
#
# So far one scale served a whole tensor, and the largest weight set it. Neither need be so. Each output
# channel can have a scale of its own ({term}`one scale per channel <per channel>`), and the range can be the
# one that makes the squared error of the weights least, at the price of clipping the largest
# ({term}`least squared error <MSE range>`). Scales cost four bytes each, so look at size and not at bits:
# higher is better above, lower below.

# %% tags=["hide-input"]
figures.accuracy_by_size(made["storage"])

# %% tags=["hide-input"]
story.grid_matters(made["storage"])

# %% [markdown]
# ## The range, taken apart
#
# A range decides two things at once: how wide the steps are, and which weights are cut off. Which of the two
# makes minorities pay, and in which range? Twenty networks with seeds of their own answer; what each does to
# each group was [measured before](../book/registered) and is part of the book. Three marks stand in each
# row. *As it is*; with batch norm statistics taken again; and with {term}`class offsets <class offset>`,
# which make each class as probable, over images that no network learned from, as it was in full precision.
# No label is used for that. Look at how wide the intervals are, and whether they stay so wide once whole
# classes have been put right.

# %% tags=["hide-input"]
why = by_network.load("moths_why")
kit_figures.dots_of_contrasts(tables.ranges(why), "by the range of the weights")

# %% [markdown]
# With the range that makes the squared error of the weights least, some are cut off and all are rounded. Each
# can be done without the other.

# %% tags=["hide-input"]
kit_figures.dots_of_contrasts(tables.clipped_or_rounded(why), "cut off and rounded apart")

# %% tags=["hide-input"]
interventions.left_by_new_statistics([why, faces_why])

# %% [markdown]
# In which layers does cutting off do this? Here one layer after the other has its large weights cut off, and
# all else stays as it is, on the same twenty networks and on those of faces that are made so far.

# %% tags=["hide-input"]
cut = [by_network.load(name) for name in ("moths_clipping", "utkface_clipping")]
by_layer = tables.clipped_by_layer(cut)
figures.clipped_by_layer(by_layer)

# %% tags=["hide-input"]
story.where_clipping_acts(by_layer)

# %% [markdown]
# ## Why do answers flip?
#
# <!-- fold -->
#
# An answer changes where the noise of rounding is larger than the distance to the next class. So a group
# whose answers change more often may have smaller margins, or more noise, or noise that
# leans to one side. Each is exchanged for that of the largest group, one after the other in every order, and
# the mean over the orders is its share of the difference.

# %% tags=["hide-input"]
figures.why_flips(tables.flips_apart(why), why.majority)

# %% [markdown]
# Of fifty language models Hua and others {cite}`hua2026` report that up to 21 % of answers change while the
# average stands, that four bits change four to six times as many as eight, and that groups go opposite ways
# in one model. Here is the same of moths and of faces. That answers flip more often where a network is
# unsure, their fourth claim, is looked at in the next chapter.

# %% tags=["hide-input"]
shipped = {"Moths": why, "UTKFace": faces_why}
story.answers_change({title: tables.answers_that_change(own) for title, own in shipped.items()})

# %% [markdown]
# The registered questions of this chapter, and what the networks answer:

# %% tags=["hide-input"]
interventions.answered([why, faces_why], "01_disparity_baseline")

# %% [markdown]
# ## Size or difficulty?
#
# In data of people a small group is often also the one that is harder to tell: fewer photographs, labels
# of less agreement, a name that gathers many. Which of the two makes quantization unequal? Such data cannot
# say. Moths can be drawn so that one group of five, the focal one, is small, hard, both or neither, while its
# four peers are alike. Each species is the focal group of a fifth of the seeds, so that no species' looks are
# taken for its role. A group that is right on half of its images cannot lose as many points as one that is
# right on all: so the answers that changed and the loss stand beside the points. In [a network that you can
# quantize yourself](#quantize-yourself) the same two, size and difficulty, are yours to turn.
#
# Thirty networks of each kind answer, which were trained before; with `moth_seeds` your machine trains
# others.

# %% tags=["hide-input"]
figures.size_and_difficulty(made["size_and_difficulty"])

# %% tags=["hide-input"]
story.size_or_difficulty(made["size_and_difficulty"])

# %% [markdown]
# ## Verdict

# %% tags=["hide-input"]
wording.together(
    "With fewer bits the gap grows, with a jump between eight bits and four.",
    [grows, jumps],
)

# %% [markdown]
# **Next.** The outputs of a rounded network are known to flatten. The next chapter asks whether that is what
# costs the answers.

# %% [markdown]
# **Try it yourself.** Other widths need no new training, only a few seconds:
#
# ```sh
# fairq run 01 -p bit_widths='[7, 6, 5]'
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
# The papers speak of photographs. These are results on UTKFace: the same {term}`study` at 64 pixels, where
# the label is the race that the data set gives, and the group is the label. The images may not be shipped, so
# what follows is drawn from tables that are part of the book; [the page of claims](../book/claims) says who
# made them, and how. [The data card](../book/data/utkface) says what these names of groups leave out.

# %% tags=["hide-input"]
faces = earlier.load("utkface")
figures.accuracy_by_treatment(faces["accuracy"])

# %% tags=["hide-input"]
of_faces = tables.change_by_network(faces["accuracy_by_seed"], faces.majority)
story.who_pays(faces["accuracy"], of_faces, faces["collapse"], faces.majority)

# %% tags=["hide-input"]
figures.violation_by_treatment(faces["accuracy"], faces["chance"], faces["collapse"])

# %% tags=["hide-input"]
figures.accuracy_by_size(faces["storage"])

# %% [markdown]
# And what makes minorities pay there? Networks of `resnet18-16` answer, whose number
# [the page of claims](../book/claims) says.

# %% tags=["hide-input"]
kit_figures.dots_of_contrasts(tables.clipped_or_rounded(faces_why), "cut off and rounded apart, on UTKFace")

# %% tags=["hide-input"]
figures.why_flips(tables.flips_apart(faces_why), faces_why.majority)

# %% tags=["hide-input"]
claims.judge("A1", faces)

# %% [markdown]
# The same claim in every setting. The groups of FairFace differ far less in size. With gender as the label,
# and race as the group, a group's accuracy is no longer the recall of a class.

# %% tags=["hide-input"]
claims.everywhere("A1", {"here": here} | earlier.every())

# %% tags=["hide-input"]
claims.judge("A7a", faces)

# %% tags=["hide-input"]
claims.everywhere("A7a", {"here": here} | earlier.every())
