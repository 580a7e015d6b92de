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
# # 8. Audit your model
#
# A team is about to ship a model that was quantized. On average it is as good as before.
# Somebody has to ask who pays, and to answer with what a pipeline, a reviewer and a model card can use.
# This page is one such audit, from the question to the files, and a template for yours.
#
# **What this does not show.** Approval of a model. An audit speaks of these images, these groups
# and this one model; that it found nothing means what it could have found, and no more. Nor does it say
# that the model was fair before.

# %% [markdown]
# ## Parameters
#
# Each can be set from outside: `fairq run 08 -p treatment=int3`, or with papermill (lists by its `-y`). With
# `before` and `after`, two files of predictions, nothing is trained or run, and all that describes images and
# network is ignored.

# %% tags=["parameters"]
before: str = ""  # predictions before, CSV or Parquet; empty to quantize the book's own network
after: str = ""  # predictions after
groups: list[str] = ["group"]  # columns that name groups; several are crossed as well
margin: float = 0.02  # the smallest drop that matters, a fraction
fail_if: list[str] = ["worst_group_drop > 0.02", "fvo_increase > 0.03"]  # gates
decide_on: str = "lower"  # which end of the interval a gate is held to: lower, estimate or upper
out: str = ""  # a folder for the report and its tables, new or that of an earlier audit; empty for none
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
seed: int = 0  # of the network's training
treatment: str = "int4"  # what is done to it: any of `fairq treatments` that does not train

# %% tags=["hide-input"]
from fairq_audit.auditing import audit, check_place
from fairq_audit.predictions import side_by_side
from fairq_book.chapters.audit import asks, figures, story

if out:
    check_place(out)  # refused now rather than when all is computed
held_to = {"groups": groups, "margin": margin, "fail_if": fail_if, "decide_on": decide_on}
network = {"seed": seed, "treatment": treatment}
wanted = asks.Asks(before=before, after=after, out=out, **network, **held_to)
data = {"dataset": dataset, "root": root, "label": label, "group": group, "image_size": image_size}
recipe = {"train_images": train_images, "test_images": test_images, "arch": arch, "epochs": epochs}
asked = wanted.predictions(setting, **data, **recipe)

# %% [markdown]
# ## Two tables
#
# What an audit needs is little: for each image its label, its {term}`group`, and what the model answered
# before and after, matched by `id`. These are the first images of each group. The tables may come from any
# framework.

# %% tags=["hide-input"]
side_by_side(asked["before"], asked["after"], groups)

# %% [markdown]
# ## The audit
#
# Three lines. All that follows on this page is read off what they return.

# %%
found = audit(**asked, groups=groups, margin=margin, fail_if=fail_if, decide_on=decide_on)
if out:
    found.write(out)

# %% tags=["hide-input"]
story.audit_verdict(found)

# %% [markdown]
# The verdict is one of four words: harm shown, equivalent, no harm found, cannot tell. The last two are not
# the same. [The reference](../book/audit_reference) says which is said when. It knows classes too: one that
# fails in a single group can leave accuracy nearly where it was, and is harm all the same.
#
# ## Who lost what
#
# Look at the limits before the dots: they hold for all groups at once, because the worst of many groups is
# chosen after looking. Then look at the upright strokes. A dot at zero with a stroke far to the right has
# proved little.

# %% tags=["hide-input"]
figures.audited_drops(found.tables["groups"], margin=margin)

# %% tags=["hide-input"]
story.audit_groups(found)

# %% [markdown]
# Did the gap between groups grow? {term}`FVO` is the highest accuracy of a group less the lowest. A group
# can lose while the gap stays, and the gap can grow although nobody surely lost.

# %% tags=["hide-input"]
story.audit_gap(found)

# %% [markdown]
# ## Who flipped
#
# A drop is what was lost less what was gained. Where much of both happened, many answers changed behind a
# small difference; {term}`OA` does not show such {term}`flips <flip>`.

# %% tags=["hide-input"]
figures.audited_flips(found.tables["groups"])

# %% tags=["hide-input"]
story.audit_flips(found)

# %% [markdown]
# ## What could not have been seen
#
# {term}`Power <power>` depends on how many images a group has, and on how many answers flip anyway. Ask
# before an audit, if you can: small groups are where harm hides, and where it is hardest to see.

# %% tags=["hide-input"]
story.audit_power(found, margin)

# %% [markdown]
# ## Is it as good as before?
#
# That no loss was found does not show that there is none. {term}`Equivalence <equivalence>` asks the other
# way round: can a change of the margin or more be ruled out, in every group?

# %% tags=["hide-input"]
story.audit_equivalence(found)

# %% [markdown]
# ## Gates
#
# A {term}`gate` lets a pipeline fail. By `decide_on`, it fails when a quantity is surely beyond (`lower`,
# for every commit), when the estimate is, or when that cannot be ruled out (`upper`, for a release).

# %% tags=["hide-input"]
story.audit_gates(found)

# %% [markdown]
# ## What is left
#
# `found.write("audit")` leaves the report, all numbers as JSON, tables as CSV and a paragraph for a model
# card. In a notebook `found` itself shows the report:

# %%
found

# %% [markdown]
# And this is the paragraph:

# %% tags=["hide-input"]
story.audit_card(found)

# %% [markdown]
# ## What was not tested

# %% tags=["hide-input"]
story.audit_untested(found)

# %% [markdown]
# **Try it yourself.** This page with your own predictions, from any framework:
#
# ```sh
# fairq run 08 -p before=fp32.csv -p after=int8.csv -p margin=0.01
# ```
#
# Or without the page, by one command. From predictions alone:
#
# ```sh
# fairq audit --predictions fp32.csv int8.csv --out audit --fail-if "worst_group_drop > 0.02"
# ```
#
# From a model and its weights, which are rounded for the audit:
#
# ```sh
# fairq audit --model my_code:network --weights weights.safetensors \
#     --treatment int4-mse-channel --dataset folder --root photos \
#     --image-size 64 --mean 0.5 --std 0.25 --out audit
# ```
#
# From two models, of which one was quantized elsewhere:
#
# ```sh
# fairq audit --model fp32.onnx --model int8.onnx --mean 0.5 --std 0.25 \
#     --dataset folder --root photos --out audit
# ```
#
# All of them, and the three lines in Python, give the same numbers for the same network.

# %% [markdown]
# ## On real faces
#
# <!-- fold -->
#
# An audit needs the answers to single photographs, and those are not in this book's tables. With your copy
# of UTKFace it is one line; [the data card](../book/data/utkface) says what its names of groups leave out.
#
# ```sh
# fairq run 08 -p dataset=utkface -p root=~/Downloads/UTKFace.tar.gz -p image_size=64
# ```
