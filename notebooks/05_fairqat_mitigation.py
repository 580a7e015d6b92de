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
# # 5. What repairs it?
#
# Repair what rounding does to small {term}`groups <group>`, find out which part of the remedy
# repairs, and what it costs.
#
# **The claim.** Bellam and Kim {cite}`bellam2025` propose three things at once: training while quantized
# ({term}`QAT`) with 8 bits in the first and the last layer, a
# {term}`loss in which the smallest group counts for more <loss weights>`, and sampling that shows every group
# equally often. Together, as {term}`FairQAT`, they say it narrows the gap between groups, against rounding
# alone and against plain QAT, at about the same {term}`overall accuracy <OA>`.

# %% [markdown]
# ## Parameters
#
# Each can be set from outside: `fairq run 05 -p bit_widths='[4]'`, or with papermill.

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
tuning_epochs: float = 0  # the same for each arm; 0 for the recipe's own
bit_widths: list[int] = [4, 3, 2]  # widths from 2 to 16; the first is looked at most closely
seeds: list[int] = [0, 1, 2]  # one network is trained from each
loss_weights: list[int] = [40, 80]  # of the smallest group in percent, beside the published 60
samplings: list[str] = ["sampled50", "oversampled"]  # beside the published one; also undersampled
images_per_group: int = 64  # images of each group to measure the landscape on
images_each: int = 200  # training images of each group, to compare with the test

# %% tags=["hide-input"]
from fairq_book.chapters.disparity import story
from fairq_book.chapters.landscape import story as landscape_story
from fairq_book.chapters.repair import asks, beside, figures, tables
from fairq_book.chapters.repair import story as repair_story
from fairq_book.chapters.repair.found import in_short
from fairq_book.experiments import settings
from fairq_book.experiments.gather import gather
from fairq_book.explorer.widget import Explorer
from fairq_book.kit import by_network, earlier, measured, wording
from fairq_book.kit import figures as kit_figures
from fairq_book.kit.told import networks_of
from fairq_book.pages import claims, front

# %% tags=["hide-input"]
recipe = {"arch": arch, "epochs": epochs, "tuning_epochs": tuning_epochs, "image_size": image_size}
limits = {"train_images": train_images, "test_images": test_images}
data = {"dataset": dataset, "root": root, "label": label, "group": group}
trained = settings.studies_of(setting, seeds=seeds, **data, **recipe, **limits)
swept = {"loss_weights": loss_weights, "samplings": samplings}
images = {"images_per_group": images_per_group, "images_each": images_each}
got = gather(trained, asks.Asks(bit_widths=bit_widths, **swept, **images))
made = tables.make(got)

# %% tags=["hide-input"]
story.who_is_there(got["rounded"][0])

# %% [markdown]
# ## What we found

# %% tags=["hide-input"]
in_short()

# %% tags=["hide-input"]
front.of_repairs(networks_of("utkface_repair"))

# %% [markdown]
# **What this does not show.** A recipe that holds for every network: what is chosen here was
# chosen for these images. Nor as proof that a gap is closed where it is smaller: ask what it is in points.

# %% [markdown]
# ## The remedy, in parts
#
# :::{margin} Loss weights
# Of five groups the smallest has the weight 0.6 and each other one 0.1: an image of the smallest counts six
# times as much as any other.
# :::
#
# The forward pass sees rounded weights $\hat w$, the backward pass moves the free weights $w$ behind them, as
# if rounding had slope one. What is made small is
#
# $$L = \frac{\sum_i \omega_{a(i)}\, \ell_i}{\sum_i \omega_{a(i)}},$$ (weighted-loss)
#
# over the images $i$ of a batch, where $\ell_i$ is the cross entropy of an image and $\omega_a$ the weight of
# its group $a$: 0.6 for the smallest group and 0.4, divided evenly, for all others. Sampling draws each epoch
# so that every group is seen as often as the average one. Activations stay in full precision. Where a group
# is a label, both also move the border between labels: accuracy is then taken from one group and given to
# another.
#
# Each of the three is on or off. Training off means: the network is trained further in full precision, as
# long and on the same images, and rounded afterwards. That gives eight arms, and each is compared with
# {term}`rounding alone <PTQ>`, with 8 bits in the first and the last layer like all of them. A tenth of the
# training images is kept from all arms, for choices. Look at OA first, then at {term}`FVO`: a gap that closes
# because everybody falls is no repair.

# %% tags=["hide-input"]
smallest, collapse = got.smallest, made["collapse"]
figures.arms(made["against_rounding_drawn"], groups=["OA", "FVO", smallest])

# %% [markdown]
# Which answers does an arm win, and which does it give away? Choose two treatments below the histograms
# ([more of this](09_explorer)).

# %% tags=["hide-input"]
looked_at, both = got.treatments("learned"), [*got["rounded"], *got["arms"]]
Explorer.of_predictions([p for p in both if p.treatment in looked_at], ["margin", "confidence"])

# %% [markdown]
# ## Is it the training, or the weights?
#
# <!-- fold -->
#
# :::{margin} Names of the arms
# `ends8`: 8 bits in the first and the last layer. `qat`: trained while quantized, `tuned`: trained as long in
# full precision. `weighted` and `sampled` are the loss and the sampling. See {term}`treatment`.
# :::
#
# An effect is what is measured with a part, less what is measured without it, on average over the four
# settings of the other two. Where parts help or hinder each other, the interaction is away from zero. Look at
# FVO: left of the line, a part narrows the gap.

# %% tags=["hide-input"]
figures.effects(made["effects_drawn"], groups=["OA", "FVO", smallest])

# %% tags=["hide-input"]
part = repair_story.which_part_repairs(made["effects"], collapse, seeds=len(trained))
part

# %% [markdown]
# ## Does the remedy hold what it promises?
#
# Two comparisons are needed: with rounding alone, and with plain QAT. All training also shows more images, so
# what it does beyond rounding is not owed to the grid alone; the effects above tell that apart.

# %% tags=["hide-input"]
changes = made["against_rounding"]
repaired = repair_story.repairs(changes, made["against_plain_training"], collapse, seeds=len(trained))
repaired

# %% [markdown]
# Liu and others {cite}`liu2025` say that plain QAT is *less* fair than rounding to the same few bits, though
# more accurate. If so, the rest of the remedy has to make up for its first part.

# %% tags=["hide-input"]
repair_story.training_is_less_fair(changes, collapse, seeds=len(trained))

# %% [markdown]
# And does QAT bring back the accuracy that rounding takes? Here the comparison is with full precision. Eight
# bits are the control: there nothing is lost, and nothing should be.

# %% tags=["hide-input"]
lost = made["change_arms"]
by_rounding = lost[lost["training"] == "none"]
back = repair_story.accuracy_comes_back(lost, by_rounding, seeds=len(trained))
back

# %% [markdown]
# ## What fairness costs
#
# <!-- fold -->
#
# Now one width, and every part turned up by degrees: the weight of the smallest group in {eq}`weighted-loss`,
# and how far sampling evens out the groups. Seeing each as often as the largest is the remedy of Liu and
# others, for a repeated image is moved and mirrored anew. Two methods from outside stand beside them:
# group-DRO {cite}`sagawa2020`, where the weight of a group grows as long as its loss is large, and
# {term}`logit` adjustment {cite}`menon2021`, where a rare label has to win by more. Look at which way down
# costs least to the left, and at who is worst off at each point.

# %% tags=["hide-input"]
frontier = made["frontier"]
here = frontier[frontier["width"].isin(["fp32", f"int{looked_at[1].bits}"])]
figures.frontier(here, got.group_names)

# %% tags=["hide-input"]
repair_story.at_what_price(here)

# %% tags=["hide-input"]
repair_story.baselines(here)

# %% [markdown]
# ## Does it flatten what rounding sharpened?
#
# <!-- fold -->
#
# As in [the chapter before](04_hessian_landscape): gradient norm and top eigenvalue, for each group on as
# many training images.

# %% tags=["hide-input"]
kit_figures.around_by_treatment(made["around"], got.group_names)

# %% tags=["hide-input"]
ratios = made["to_rounded"]
flattened = landscape_story.training_flattens(ratios, collapse, seeds=len(trained), group=smallest)
flattened

# %% [markdown]
# Flatter for whom? A remedy that looks away from the others may leave them on steeper ground.

# %% tags=["hide-input"]
landscape_story.training_flattens(ratios, collapse, seeds=len(trained))

# %% [markdown]
# ## Does it hold on test as on train?
#
# <!-- fold -->
#
# A gap can be closed by learning the few images of a small group by heart. So the same is asked of images
# that were trained on, of each group as many. Remedies that work on training images
# often fail on others {cite}`hashemizadeh2024`.

# %% tags=["hide-input"]
figures.on_both(made["on_both"])

# %% tags=["hide-input"]
held = repair_story.holds_on_test(made["on_both"], collapse, seeds=len(trained))
held

# %% [markdown]
# ## What to do
#
# <!-- fold -->
#
# Given a width, which arm? The choice is made on the images for tuning, a tenth of each group that no
# network has seen, not on those that it is then reported on: of all arms whose OA is at most one point
# below the best, the one with the smallest gap. These images are few, so between arms that are close it is
# partly luck. Whether the chosen arm is better than rounding alone is then asked of the test images.

# %% tags=["hide-input"]
repair_story.choices(made["what_to_do"])

# %% tags=["hide-input"]
repair_story.advice(made["what_to_do"])

# %% [markdown]
# ## Every remedy beside every other
#
# A few arms were made on your machine. Here is all that the book tried, on networks of its own, asked what
# was [written down](../book/registered) before they were trained. What trains is compared with plain QAT,
# which had as many passes over the images, and what is packed takes about as many bytes. First what needs no
# training at all: new statistics, a better range, and offsets of classes, which are five numbers.

# %% tags=["hide-input"]
asked = ["moths_repair", "utkface_repair"]
tried = by_network.measured(asked)
beside.who_answers(asked)

# %% tags=["hide-input"]
beside.remedies(tried, 4, trained=False)

# %% tags=["hide-input"]
beside.remedies(tried, 3, trained=False)

# %% [markdown]
# And what trains, at four bits, against plain QAT. *Trained before* means: as long in full precision, and
# rounded afterwards. Sampling makes a pass longer or shorter; how many images each shows is said at the end.

# %% tags=["hide-input"]
beside.remedies(tried, 4, trained=True)

# %% tags=["hide-input"]
beside.answered(tried)

# %% [markdown]
# The published remedy, at each width, in points:

# %% tags=["hide-input"]
beside.published(tried)

# %% [markdown]
# ## How long is enough?
#
# <!-- fold -->
#
# Whoever trains while rounding also trains longer. How many passes bring back what rounding took, and what
# would as many have brought without rounding?

# %% tags=["hide-input"]
longer = by_network.load("moths_passes")
beside.learning_curves(beside.longer(longer))

# %% tags=["hide-input"]
beside.how_long(longer)

# %% [markdown]
# ## Cure by cause
#
# <!-- fold -->
#
# The paper weights the loss because balance in numbers cannot help a group that is *hard*. Moths can be
# asked: one group is small, or hard, or both, and everything else is alike. What does each cure do for that
# group?

# %% tags=["hide-input"]
cured = beside.cures(beside.with_causes())
beside.cure_by_cause(cured)

# %% tags=["hide-input"]
beside.cures_answered(cured)

# %% [markdown]
# ## As many bytes, saved in other ways
#
# <!-- fold -->
#
# Is it rounding that minorities pay for, or being made small? A network of as many bytes can be had by
# pruning, where a mask says which weights are left, or with fewer channels from the start.

# %% tags=["hide-input"]
beside.by_bytes(tried)

# %% [markdown]
# ## Which one to take
#
# A third of the networks choose: of what somebody can do, the remedy with the smallest mean FVO among those
# within two points of the best OA. The others say what it brings against rounding alone, in points; of what
# trains, that includes what training longer does by itself. On moths and on these faces the group *is* the
# label; so what somebody could do who knows the group when a question comes is not asked here.

# %% tags=["hide-input"]
beside.frontier(tried, 4)

# %% tags=["hide-input"]
beside.choices(tried)

# %% [markdown]
# Who gains, and who pays? Of a thousand images of each group at int4, so many more are right than after
# rounding alone, on moths and then on faces. Beside it recall, precision and F1 of the smallest group:
# precision falls where its label is given to others. The last column says by how many points the confidence
# of its answers is off from their accuracy. *Even offsets* are class offsets from labels that count alike.

# %% tags=["hide-input"]
beside.who_gains(tried[0])

# %% tags=["hide-input"]
beside.who_gains(tried[1])

# %% [markdown]
# And how many images training shows, of those that the original's training showed:

# %% tags=["hide-input"]
beside.costs(tried)

# %% [markdown]
# ## Verdict

# %% tags=["hide-input"]
wording.together(
    "FairQAT narrows the gap between groups at about the same accuracy, because of its weights and not of "
    "its training while rounded, which flattens the loss; and this holds on images that it did not see.",
    [repaired, part, back, flattened, held],
)

# %% [markdown]
# **Next.** All of this was about classifiers. The second study says that models of images and texts move in
# no direction at all: the next chapter asks a population of them.

# %% [markdown]
# **Try it yourself.** Your own network takes four lines; `data` is what `fairq_utils.data.sources.load`
# returns:
#
# ```python
# from fairq_utils.training.fairqat import FairQAT
# from fairq_utils.quantization.packing import save_packed
#
# repaired = FairQAT(4, loss_weights="inverse").fit(model, data)
# save_packed(repaired, "repaired.safetensors")
# ```
#
# Another width, or a longer training: `fairq run 05 -p bit_widths='[5]' -p tuning_epochs=8`. The arms are
# treatments like all others, and can be made on many machines:
#
# ```sh
# fairq sweep --bits 4 --treatments fairqat,ends8-qat-weighted
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
# claims](../book/claims) says who made them, and how). All eight arms stand at four bits; at the other widths
# rounding alone, plain QAT, the same with the weights, and FairQAT.

# %% tags=["hide-input"]
faces = earlier.load("utkface")
of_faces = ["OA", "FVO", faces.ends.smallest]
figures.arms(faces["against_rounding_drawn"], groups=of_faces)

# %% tags=["hide-input"]
figures.effects(faces["effects_drawn"], groups=of_faces)

# %% tags=["hide-input"]
repair_story.which_part_repairs(faces["effects"], faces["collapse"], seeds=faces.seeds)

# %% tags=["hide-input"]
claims.judge("A6", faces)

# %% tags=["hide-input"]
claims.everywhere("A6", {"here": here} | earlier.every())

# %% tags=["hide-input"]
claims.judge("Liu", faces)

# %% tags=["hide-input"]
claims.everywhere("Liu", {"here": here} | earlier.every())

# %% [markdown]
# And what it costs, whether it holds on images that were not trained on, and what to do.

# %% tags=["hide-input"]
frontier = faces["frontier"]
figures.frontier(frontier[frontier["width"].isin(["fp32", "int4"])], faces.groups)

# %% tags=["hide-input"]
repair_story.holds_on_test(faces["on_both"], faces["collapse"], seeds=faces.seeds)

# %% tags=["hide-input"]
repair_story.choices(faces["what_to_do"])
