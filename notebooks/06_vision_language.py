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
# # 6. Does it skew models of images and texts?
#
# Ask whether quantization skews a population of models in one direction, when the models
# compare images with texts and nobody trained them for the labels at hand.
#
# **The claim.** Slyman and others {cite}`slyman2024` quantize many models of the kind of CLIP and find three
# things: bias changes in no consistent size or direction; groups answer the same quantization in opposite
# ways; and some changes are significant, but small. They suppose that a model of images and texts may behave
# in another way than a classifier.

# %% [markdown]
# ## Parameters
#
# Each can be set from outside: `fairq run 06 -p treatments='["fp32", "int4"]'`, or with papermill.

# %% tags=["parameters"]
dataset: str = "moths"  # what the images are of: moths or fairface
root: str = ""  # where your copy of it lies; the moths need none
group: str = ""  # whom to compare, and who is rare where it is skewed; empty for the label itself
image_size: int = 32  # pixels along a side
images: int = 3000  # to learn from, of each training set
test_images: int = 0  # at most so many to be tested on; 0 for all, of moths 1000
archs: list[str] = ["patch8", "patch4", "patch8-deep"]  # shapes of the image side
training_sets: list[str] = ["balanced", "skewed", "noisy"]  # what they are taught with
seeds: list[int] = [0, 1, 2]  # of the training; one encoder for each of shape, training set and seed
epochs: int = 8  # passes over the training images
treatments: list[str] = []  # such as bnb-nf4, torch-int8, or int2 to int16; empty for a choice of all
prompts: list[str] = []  # sentences with a gap, {}, for the name of a class; empty for the book's own
ks: list[int] = [1, 5, 10]  # retrieval: how many answers may be given
top: int = 100  # ranking: how many of the closest images are looked at

# %% tags=["hide-input"]
import pandas as pd

from fairq_book.chapters.encoders import asks, figures, story, tables
from fairq_book.chapters.encoders.found import in_short
from fairq_book.experiments import populations
from fairq_book.explorer.widget import Explorer
from fairq_book.kit import earlier, wording
from fairq_book.pages import claims
from fairq_utils.encoders.linear_layers import linear_treatments

# %% tags=["hide-input"]
shapes = {"images": images, "archs": archs, "training_sets": training_sets}
counted = {"prompts": prompts, "ks": ks, "top": top}
wanted = asks.Asks(treatments=treatments, **shapes, **counted)
data = {"dataset": dataset, "root": root, "image_size": image_size, "test_images": test_images}
learning = {"group": group, "seeds": seeds, "epochs": epochs}
asked = wanted.population(**data, **learning)
twins = wanted.population(**data, **learning, taught="labels")
group = asked[0].group

# %% [markdown]
# ## What we found

# %% tags=["hide-input"]
in_short(earlier.load("fairface_encoders"))

# %% [markdown]
# **What this does not show.** A statement about CLIP. The models here are far smaller
# and have read few words; they stand in for CLIP because a whole population of them can be trained, skewed on
# purpose and rounded in minutes. What they can show is how such a claim is tested, and
# whether it has to hold for whatever is built of two encoders. They cannot show that it holds for large ones.

# %% [markdown]
# ## A small CLIP
#
# <!-- fold -->
#
# :::{margin} Dual encoder
# Two networks, one for images and one for texts, which answer with directions of the same space.
# :::
#
# An image $x$ and a text $t$ become directions $u(x)$ and $v(t)$, of length one. In a batch, each image is to
# find its caption among all, and each caption its image, by
#
# $$s(x, t) = \tau\, u(x) \cdot v(t),$$ (closeness)
#
# where the scale $\tau$ is learned too. Captions are made of what is known of an image, in varied wording.
# These are some of the first image:

# %% tags=["hide-input"]
scenes = populations.scenes(asked[0])
list(scenes.captions[0])

# %% [markdown]
# The population: three shapes of the image side, three sets of training images, one seed or more. *Balanced*
# shows every group equally often; *skewed* shows the last a sixteenth as often as the first, and those
# between by equal steps; *noisy* tells of every fifth image what another one is. All sets are of one size.
# The moths are drawn easier than in the other chapters, so that a short training suffices.

# %%
answers = populations.answers(asked, wanted.compared, prompts=prompts)
of_twins = populations.answers(twins, wanted.compared)
made = tables.make(answers, of_twins, group, ks=ks, top=top)

# %% tags=["hide-input"]
found, failed = made["consistency"], made["failures"]
story.who_was_trained(made["measures"], failed, classes=len(scenes.names(asked[0].label)))

# %% [markdown]
# ## What rounds them
#
# <!-- fold -->
#
# The libraries that people use, on the very same layers, and the book's own grids beside them. *Runs* says
# what did the work on the machine that built this page.

# %% tags=["hide-input"]
story.what_rounds(linear_treatments(wanted.compared))

# %% [markdown]
# ## Is it still a good model?
#
# <!-- fold -->
#
# To recognise {term}`zero-shot`, a class is given a name in a few sentences, such as "a photo of a ... moth",
# and an image gets the class whose sentences lie closest, by {eq}`closeness`. To retrieve, an image looks for
# its own caption among all captions, and a caption for its image: recall at K is how often it is among the
# first K. Look at the last column before you look for bias: answers {term}`flip` also where no average moves.

# %% tags=["hide-input"]
story.retrieval(made["measures"])

# %% [markdown]
# ## No consistent change?
#
# :::{margin} Skew
# How much more, or less, of a group is among the first images than among all: the logarithm of the ratio of
# the two shares. MaxSkew is that of the group with most, MinSkew of the one with least.
# :::
#
# Two kinds of bias. {term}`FVO` asks who is recognised. {term}`Skew <skew>` asks who is found: neutral
# sentences, which name no group, rank all images, and the first ones should be of the groups in proportion.
# NDKL weighs the whole of these first ranks, the foremost most. Each model is compared with itself before
# rounding.
#
# Look at whether the dots lie on one side of the line, then at whether their mean could lie outside the grey
# band. Inside it, a change is too small to matter, and that can be shown; outside of it, and on one side, it
# would be consistent.

# %% tags=["hide-input"]
figures.population_changes(made["by_model"], found)

# %% tags=["hide-input"]
story.no_consistent_change(found, failed)

# %% [markdown]
# The same, where not models but pairs of a model and a sentence are compared: does every neutral sentence
# rank in the same new way?

# %% tags=["hide-input"]
story.no_consistent_change(made["by_query"], failed, of="pair")

# %% [markdown]
# Who finds its caption, and who comes first for a sentence that names nobody? Choose a quantity and a
# treatment; below the histograms stand recall and skew, group by group. Ranks are told among the same images,
# so these are the encoders of the first draw of them.

# %% tags=["hide-input"]
alike = [study for study in asked if study.dataset == asked[0].dataset]
names = {study.name for study in alike}
Explorer.of_answers(
    [answer for answer in answers if answer.model in names],
    group,
    queries=asked[0].grammar.queries,
    top=top,
    ask=populations.on_demand(alike, prompts=prompts),
)

# %% [markdown]
# ## Do groups answer in opposite ways?
#
# A mean over groups can stand still while one gains what another loses. Look for marks of one line on either
# side of zero.

# %% tags=["hide-input"]
figures.accuracy_by_group(found)

# %% tags=["hide-input"]
story.groups_oppose(found, failed)

# %% [markdown]
# Image by image, over all models: for whom do more answers turn wrong than right?

# %% tags=["hide-input"]
story.lost_and_won(made["lost_and_won"])

# %% [markdown]
# ## Significant, but small?
#
# With enough models anything becomes significant. So each change is shown in units of the least change that
# would matter: two points of accuracy, 0.05 nats of skew. These margins were set before any number was seen.

# %% tags=["hide-input"]
figures.against_margins(found)

# %% tags=["hide-input"]
story.significant_but_small(found, failed)

# %% [markdown]
# ## Is it the language?
#
# <!-- fold -->
#
# Chapters 1 to 5 ask why a classifier skews; this one, whether encoders do. Do they differ in kind? Here
# every encoder has a twin: the same image side, the same images and steps, but labels in place of captions,
# and one direction for each class in place of the text side. What quantization does to a twin, it would have
# done to the encoder without language.

# %% tags=["hide-input"]
figures.encoders_and_classifiers(found, made["classifier_consistency"])

# %% tags=["hide-input"]
story.differs_in_kind(made["beyond_classifiers"], made["failures_of_both"])

# %% [markdown]
# ## Verdict

# %% tags=["hide-input"]
wording.together(
    "Quantization skews a population of dual encoders in no consistent way.",
    [
        story.no_consistent_change(found, failed),
        story.groups_oppose(found, failed),
        story.significant_but_small(found, failed),
    ],
)

# %% [markdown]
# **Next.** And networks that read text alone? Both papers leave that open; the next chapter does not.

# %% [markdown]
# **Try it yourself.** Other prompts, another width: `fairq run 06 -p prompts='["a drawing of a {}"]'`, or
# `-p treatments='["int5"]'`. A real CLIP takes a few lines and its weights; `scenes` are images with captions
# and attributes of yours:
#
# ```python
# from fairq_book.experiments import populations
# from fairq_utils.encoders import pretrained, questions
#
# clip = pretrained.open_clip("ViT-B-32/openai", download=True)
# asked = questions.EvaluationSet(scenes, "kind", [["a photo of a cat"], ["a photo of a dog"]], ["a photo"])
# answers = populations.answers_of(clip, asked, ["fp32", "bnb-nf4"], name="ViT-B-32")
# populations.measures(answers, "group")
# ```

# %% [markdown]
# ## On real faces
#
# <!-- fold -->
#
# The same on FairFace, from tables that are part of the book ([the page of claims](../book/claims) says who
# made them, and how). The label is the gender that the data set gives, the group the race; captions name
# gender, race and age as the data set does. What these names leave out, says [the data
# card](../book/data/fairface).
#
# What is trained, and how, was chosen by the accuracy of single encoders in full precision: the rate, and
# that more passes help, on training images that these had not been shown; the form of the image side, that
# of the captions, and that fewer passes are too few, on the test images. So that accuracy may be a little too
# high. What rounding changes had no say in it.

# %% tags=["hide-input"]
faces = earlier.load("fairface_encoders")
story.who_was_trained(faces["measures"], faces["failures"], classes=2)

# %% tags=["hide-input"]
figures.population_changes(tables.by_model(faces["measures"], faces["failures"]), faces["consistency"])

# %% tags=["hide-input"]
claims.judge("D1", faces)

# %% tags=["hide-input"]
figures.accuracy_by_group(faces["consistency"])

# %% tags=["hide-input"]
claims.judge("D2", faces)

# %% tags=["hide-input"]
figures.against_margins(faces["consistency"])

# %% tags=["hide-input"]
claims.judge("D3", faces)

# %% [markdown]
# And beside the classifiers of the same faces:

# %% tags=["hide-input"]
story.copies(faces["accuracy_by_seed"])

# %% tags=["hide-input"]
figures.encoders_and_classifiers(faces["consistency"], faces["classifier_consistency"])

# %% tags=["hide-input"]
story.differs_in_kind(
    faces["beyond_classifiers"],
    pd.concat([faces["failures"], faces["classifier_failures"]], ignore_index=True),
)
