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
# # Disparity baseline
#
# **Purpose.** Take a network that was trained in full precision, round its weights to fewer and fewer
# bits, and see what each group of images loses.
#
# **The claim.** Bellam and Kim {cite}`bellam2025` say: with fewer bits the gap between the best and the
# worst served group grows, and it jumps between eight bits and four.
#
# **What you will learn.** How accuracy falls for each group and not only on average; how large a gap
# noise alone makes; and how to tell disparity from collapse.
#
# **What this page must not be read as.** A statement about people. The default images are moths, drawn
# by code, so that the size and the difficulty of each group are known. And group equals label here: the
# accuracy of a group is the recall of a class, so that a network which gives one answer to everything
# shows the largest possible gap without having singled anybody out.

# %% [markdown]
# ## Parameters
#
# Each can be set from outside: `fairq run 01 -p bit_widths='[6, 3]'`, or with papermill.

# %% tags=["parameters"]
dataset: str = "moths"  # what the images are of; `fairq data --help` lists what there is
root: str = ""  # where your copy of it lies; the moths need none
label: str = ""  # what is predicted; empty for the data set's own
group: str = ""  # whom to compare; empty for the data set's own
image_size: int = 32  # pixels along a side
train_images: int = 0  # at most so many to learn from; 0 for all, of moths 6000
test_images: int = 0  # at most so many to be tested on; 0 for all, of moths 6000
arch: str = "resnet18"  # the network
epochs: int = 0  # passes over the training images; 0 for the recipe's own
bit_widths: list[int] = [8, 6, 5, 4, 3, 2]  # widths from 2 to 16 to round the weights to
seeds: list[int] = [0, 1, 2, 3, 4]  # one network is trained from each

# %% tags=["hide-input"]
from fairq_utils import claims, figures, studies, tables

treatments = studies.treatments(bit_widths)
trained = studies.studies(
    seeds=seeds,
    dataset=dataset,
    root=root,
    label=label,
    group=group,
    image_size=image_size,
    train_images=train_images,
    test_images=test_images,
    arch=arch,
    epochs=epochs,
)

# %% [markdown]
# ## Who is in the data
#
# Five groups. Four are species; the last, smallest one is none: it gathers several rare morphs that lie
# between the others, as "Others" does in data sets of faces. Here they are, larger than the network sees
# them.

# %% tags=["hide-input"]
figures.contact_sheet(trained[0].dataset)

# %% tags=["hide-input"]
images = studies.dataset(trained[0])
figures.group_sizes(images)

# %% [markdown]
# ## The networks, and what they answer
#
# One network is trained from each seed. Then its weights are rounded: every convolution and linear layer,
# symmetrically, with one scale for a whole tensor, taken from its largest weight. At $b$ bits a weight $w$
# becomes
#
# $$\hat w = s \cdot \mathrm{round}(w / s), \qquad s = \frac{\max |w|}{2^{b-1} - 1}.$$
#
# Nothing is trained again. Biases, normalisation and activations stay as they are.

# %%
predictions = studies.predictions(trained, treatments)
accuracies = tables.accuracy(predictions)
changes = tables.change(predictions, level=1 - 0.05 / len(treatments[1:]))
collapse = tables.collapse(predictions)

# %% [markdown]
# ## Accuracy of each group

# %% tags=["hide-input"]
figures.accuracy_by_treatment(accuracies)

# %% tags=["hide-input"]
claims.who_pays(accuracies, changes)

# %% [markdown]
# ## The gap
#
# FVO, the fairness violation observed, is the highest group accuracy minus the lowest. It is a maximum
# minus a minimum, so noise alone makes it positive. The grey band says by how much.

# %% tags=["hide-input"]
figures.violation_by_treatment(accuracies, tables.chance(predictions), collapse)

# %% [markdown]
# ## At the narrowest width

# %% tags=["hide-input"]
claims.at_the_narrowest(accuracies, collapse, classes=len(images.label_names))

# %% tags=["hide-input"]
figures.confusion([p for p in predictions if p.treatment in (treatments[0], treatments[-1])])

# %% [markdown]
# ## Verdict

# %% tags=["hide-input"]
claims.violation_grows(changes, collapse, seeds=len(trained))

# %% [markdown]
# **Try it yourself.** Other widths need no new training, only a few seconds:
#
# ```sh
# fairq run 01 -p bit_widths='[7, 6, 5]'
# ```
