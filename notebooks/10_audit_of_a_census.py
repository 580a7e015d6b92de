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
# # Example: a census
#
# An audit of a kind of model that is much used and seldom looked at: a small network on a table
# of people. It guesses from a census who earns more than 50,000 dollars a year, it is rounded by four tools,
# and each time the question is who pays, by race and by sex.
#
# **What this does not show.** A finding about these people, or about what 4 bits do to networks.
# It is one network and one sample of 1994; with another {term}`seed` it may be others who pay.

# %% [markdown]
# ## Parameters

# %% tags=["parameters"]
groups: list[str] = ["race", "sex"]  # columns that name groups; several are crossed as well
weight: str = "fnlwgt"  # a column of how many people a row stands for; empty for none
positive: str = ">50K"  # the class that matters: >50K or <=50K
threshold: float = 0.5  # the probability from which on somebody is taken for it
bits: int = 4  # of the network that this library rounds
margin: float = 0.02  # the smallest drop that matters, a fraction
fail_if: list[str] = ["worst_group_drop > 0.02", "recall_drop[>50K] > 0.02"]  # gates
seed: int = 0  # of the network's training
epochs: int = 10  # passes over the training rows
out: str = ""  # a folder for the tables of predictions; empty for none

# %% tags=["hide-input"]
from fairq_audit.auditing import audit
from fairq_book.chapters.audit import adult, examples, figures, story
from fairq_utils.quantization.models import bake, quantize_model
from fairq_utils.quantization.quantizers import UniformQuantizer

# %% [markdown]
# ## The people
#
# UCI's Adult: people of the census of 1994, all who are in the two published files. Each stands for more or
# fewer others, as the weight says. [The data card](../book/data/adult) tells what its five races and two
# sexes leave out.

# %% tags=["hide-input"]
people = adult.people()
adult.counted(people, groups, weight)

# %% [markdown]
# ## A network, rounded
#
# It has three layers, sees neither race nor sex, and learns from the published training rows in seconds. Two
# copies are rounded: by PyTorch's own dynamic quantization to 8 bits, and by this library. (A first trial saw
# both, and at 4 bits found far fewer of those who earn more. They were left out after that trial and before
# these audits.)

# %%
network = adult.train(people, seed=seed, epochs=epochs)
narrow = bake(quantize_model(network, UniformQuantizer(bits)))
rounded = {"torch int8": adult.dynamic_int8(network), f"int{bits}": narrow}
before = adult.answers(network, people)
after = {name: adult.answers(one, people) for name, one in rounded.items()}

# %% [markdown]
# ## The audits

# %%
held_to = {"groups": groups, "positive": positive, "threshold": threshold, "unit": "person"}
held_to |= {"margin": margin, "fail_if": fail_if}
weighted = {"weight": weight or None}
found = {
    name: audit(before, table, names=("fp32", name), **held_to, **weighted) for name, table in after.items()
}
narrowest = found[f"int{bits}"]

# %% tags=["hide-input"]
examples.verdicts(found)

# %% [markdown]
# The figure is of the narrower one. Dots are accuracy lost; an upright stroke is the smallest loss that a
# group of this size would have shown.

# %% tags=["hide-input"]
figures.audited_drops(narrowest.tables["groups"], margin=margin)

# %% [markdown]
# Where a group is small, much may have gone unseen. So many people it would take:

# %% tags=["hide-input"]
story.audit_power(narrowest, margin)

# %% [markdown]
# ## Accuracy is not everything
#
# Most people earn less. A network that takes fewer for high earners can stay as accurate as it was, and
# somebody who was rightly chosen before is not chosen any more.

# %% tags=["hide-input"]
figures.class_by_group(examples.class_by_group(narrowest, positive), positive=positive)

# %% tags=["hide-input"]
examples.class_said(narrowest, positive)

# %% [markdown]
# Two measures of fairness that are often asked for. *Ratio*: the lowest share of a group that is taken, over
# the highest; by a rule of thumb it is not to be below 0.80. *Odds*: the larger of the gaps of recall and of
# false positives, in points, with the interval of its change.

# %% tags=["hide-input"]
examples.gaps(found, positive)

# %% [markdown]
# Look at the columns *before*: what the network is unequal in by itself. The gates ask what rounding added.

# %% tags=["hide-input"]
story.audit_gates(narrowest)

# %% [markdown]
# ## With weights and without
#
# The recall of each group, over the people that the rows stand for, and over the rows.

# %% tags=["hide-input"]
rows = audit(before, after[f"int{bits}"], **held_to)
examples.beside({"people": narrowest, "rows": rows}, "recall", positive)

# %% [markdown]
# ## At an equal share
#
# Did the network forget something, or did only its threshold move? With `same_rate` the threshold after is
# set so that as many rows are taken as before. What is lost then is lost by who is chosen, not by how many.

# %% tags=["hide-input"]
equal = audit(before, after[f"int{bits}"], same_rate=True, **held_to, **weighted)
examples.threshold_said(narrowest, equal)

# %% tags=["hide-input"]
examples.class_said(equal, positive)

# %% [markdown]
# ## Two other tools
#
# onnxruntime and torchao rounded one network of this kind to 8 bits. The book keeps what all three answered,
# so these tools are not needed here; `python -m fairq_book.chapters.audit.adult_kept` makes it again.

# %% tags=["hide-input"]
kept = adult.kept(people)
others = {name: audit(kept["fp32"], kept[name], **held_to, **weighted) for name in list(kept)[1:]}
examples.at_a_glance(found | others)

# %% [markdown]
# ## What this does not show
#
# - Whether other networks lose in the same groups. `fairq run 10 -p seed=1` trains another.
# - Anything about groups that the columns do not name, or that are too small here.
# - That the network should be used. What it is unequal in, it is unequal in before any rounding.
#
# ## The same on the command line
#
# `fairq run 10 -p out=census` also leaves the tables, and the command says what this page says. [The
# reference](../book/audit_reference) has all options.

# %% tags=["hide-input"]
if out:
    examples.write(out, {"fp32": before} | after)
files = [f"census/{name}.csv" for name in ("fp32", f"int{bits}")]
examples.command(files, weight=weight, **held_to)
