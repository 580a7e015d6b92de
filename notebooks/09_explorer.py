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
# # 9. Explore group by group
#
# Touch the data: choose what to look at, for whom, and after which {term}`treatment`.
#
# **What this does not show.** A test. Whoever looks at many histograms finds something in one of
# them; the chapters say what can be told from luck.

# %% [markdown]
# ## Parameters
#
# Each can be set from outside: `fairq run 09 -p bit_widths='[6, 3]'`, or with papermill.

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

# %% tags=["hide-input"]
from fairq_book.experiments import settings, studies
from fairq_book.explorer.widget import Explorer
from fairq_book.kit import earlier

recipe = {"arch": arch, "epochs": epochs, "image_size": image_size}
limits = {"train_images": train_images, "test_images": test_images}
data = {"dataset": dataset, "root": root, "label": label, "group": group}
trained = settings.studies_of(setting, seeds=seeds, **data, **recipe, **limits)

# %% [markdown]
# ## Answers, flips and weights
#
# Move the slider from full precision to fewer bits, and look at who moves: how a quantity is spread over the
# test images of each {term}`group`, whose answers become right or wrong, and how the weights of a layer fall
# onto its grid. In a notebook with a kernel any other treatment can be asked for by its name.

# %%
Explorer.of(trained, studies.treatments(bit_widths))

# %% [markdown]
# ## On real faces
#
# UTKFace, from tables that are part of the book: histograms only, because the answers to single photographs
# are not in them. [The data card](../book/data/utkface) says what these names of groups leave out.

# %% tags=["hide-input"]
faces = earlier.load("utkface")
Explorer.from_table(faces["densities"], seeds=faces.seeds, about=faces.title)

# %% [markdown]
# **Try it yourself.** Your own network and images take three lines; `images` are uint8, N x 3 x H x W:
#
# ```python
# from fairq_book.explorer import Explorer
#
# names, treatments = ["adult", "child"], ["int8", "int4", "int3"]
# Explorer.of_model(network, images, labels, groups, group_names=names, treatments=treatments)
# ```
