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
# # 7. Does it hold for language?
#
# See whether what was found on images holds for a network that reads text. One text in sixteen
# languages, which are the {term}`groups <group>`; of some the network reads all, of others a half, a
# quarter or an eighth. Then it is rounded.
#
# **The question.** Both papers name language models as what is still to be looked at, and later studies find
# that rounding costs some languages more than others {cite}`marchisio2024`. But which languages have little
# text, and which are hard to read byte by byte, goes together in the world. Here who has little is dealt anew
# for each network.

# %% [markdown]
# ## Parameters

# %% tags=["parameters"]
languages: list[str] = []  # which of the sixteen, a multiple of four; empty for all
seed: int = 0  # of the network that this page trains; it also deals who holds how much
steps: int = 1200  # of its training
bit_widths: list[int] = [8, 6, 5, 4, 3, 2]  # widths from 2 to 16 to round the weights to
channel: bool = False  # one scale for each output, in place of one for each tensor
article: int = 6  # of the test, which the network continues: 2, 6, 10, 14, 18, 22, 26 or 30
begin: int = 60  # so many bytes of it are given
follow: int = 60  # and so many are asked for

# %% tags=["hide-input"]
import torch

from fairq_book.chapters.language import figures, kept, questions, real, story, tables, view
from fairq_book.chapters.language.found import in_short
from fairq_book.kit import smollm2
from fairq_utils.language.articles import LANGUAGES, DeclarationSettings, draw_declaration
from fairq_utils.language.measures import answer_texts, changes
from fairq_utils.language.training import LanguageRecipe, train_language
from fairq_utils.quantization.models import bake, quantize_model
from fairq_utils.quantization.quantizers import UniformQuantizer

torch.set_num_threads(1)  # more are no help to so small a network, and a hindrance to the other chapters
settings = DeclarationSettings(languages=tuple(languages or LANGUAGES), seed=seed)
recipe = LanguageRecipe(steps=steps)

# %% [markdown]
# ## What we found

# %% tags=["hide-input"]
in_short(kept.load(), smollm2.load())

# %% [markdown]
# **What this does not show.** Anything about a language, or about models that people use. This one
# has a quarter of a million weights and has read half a book. No language is small here but by the deal.

# %% [markdown]
# ## One text in sixteen languages
#
# The Universal Declaration of Human Rights is the same text everywhere, so no language is harder because it
# speaks of harder things. Twenty of its thirty-one parts are for training, eight for the test, in every
# language the same. [The data card](../book/data/declaration) says where the translations are from.
#
# A byte says more in Chinese than in Thai, where it takes three to write a letter. So bits a byte are
# compared within a language only. What may be compared between languages is how much longer an *article*
# becomes: each says the same everywhere. (The length of a text is the number of bits that the network needs
# for it: the logarithm of one over the probability that it gave to each byte.)

# %%
texts = draw_declaration(settings)
network = train_language(texts, recipe=recipe, seed=seed)
rounded = bake(quantize_model(network, UniformQuantizer(4)))
by_article = changes(answer_texts(network, texts), answer_texts(rounded, texts))
by_article.groupby("language", sort=False)[["bits", "relative", "accuracy", "flips"]].mean().round(3)

# %% [markdown]
# This is the whole experiment at one width: `bits` is how much longer an article became, `relative` the same
# as a share of what it took, `accuracy` the change of the share of bytes that are named rightly, and `flips`
# the share of bytes that {term}`flip`: their likeliest value is another than before.
#
# How much each language held, and how well the network says it before anything is rounded:

# %% tags=["hide-input"]
networks = tables.rounded(network, texts, bit_widths, channel=channel)
live = tables.of_this_network(networks, texts, settings)
tables.who_holds(texts, live)

# %% tags=["hide-input"]
figures.costs(tables.costs(live))

# %% [markdown]
# ## Choose a language
#
# What each width costs it in this network, and how the network goes on with an article that it has never
# seen. (A mark with a question mark is a letter that was broken off between its bytes.) The arrow keys move
# from language to language.

# %% tags=["hide-input"]
told = view.continued(networks, texts, article=article, begin=begin, count=follow)
view.by_language(live, told)

# %% [markdown]
# ## Sixteen networks
#
# One network decides nothing. The book keeps what others of this kind answered, under all that is done to
# them below. In every four of them each language holds each share once, so a line over the shares is drawn
# *within* languages: what a language has in all networks is taken away. A number is how far that line rises
# from a language with all its text to one with an eighth. [The questions](../book/registered) were written
# down before these networks were trained.

# %% tags=["hide-input"]
measured = kept.load()
of_all = questions.Languages(measured.answers)
story.who_answers(measured)

# %% tags=["hide-input"]
figures.slopes_by_width(tables.slopes_by_width(of_all), measured.networks)

# %% tags=["hide-input"]
story.tell("longer", measured)

# %% tags=["hide-input"]
story.tell("flips", measured)

# %% tags=["hide-input"]
story.tell("accuracy", measured)

# %% [markdown]
# All primary questions, with the numbers behind the answers, in points:

# %% tags=["hide-input"]
story.answers(measured)

# %% [markdown]
# ## By what?
#
# <!-- fold -->
#
# The same networks with a part of the rounding, or something else in its place. There is no batch norm here:
# a layer norm takes its statistics from each place anew, so that none of them can be old.

# %% tags=["hide-input"]
figures.causes(tables.causes(of_all), measured.networks)

# %% tags=["hide-input"]
story.tell("scale or order", measured)

# %% tags=["hide-input"]
story.tell("parts", measured)

# %% tags=["hide-input"]
story.tell("loud", measured)

# %% [markdown]
# ## How steep
#
# <!-- fold -->
#
# The {term}`gradient norm` of the loss and its {term}`top eigenvalue`, for each language on as many bytes of
# the test articles, by the share of its text that it held. The squared norm is less sampling, as in
# chapter 4.

# %% tags=["hide-input"]
tables.steepness(measured.landscape)

# %% tags=["hide-input"]
story.tell("steep", measured)

# %% [markdown]
# ## What repairs
#
# Two hundred steps more, in full precision or while rounded; with {term}`loss weights`, with even
# sampling, or with both. What is trained further changes anyway, so the control has trained as long.

# %% tags=["hide-input"]
figures.repairs(tables.repairs(of_all), measured.networks)

# %% tags=["hide-input"]
story.tell("repairs", measured)

# %% [markdown]
# ## Which languages, and which answers
#
# <!-- fold -->
#
# Whatever they held, do some languages lose more than others?

# %% tags=["hide-input"]
figures.by_language(tables.by_language(of_all), measured.networks)

# %% tags=["hide-input"]
story.tell("who pays", measured)

# %% [markdown]
# And the claims on answers that flip, as in chapter 1:

# %% tags=["hide-input"]
story.tell("claims on flips", measured)

# %% [markdown]
# ## A real language model
#
# The small network can be asked anything, but nobody uses it. So the same text was given to a model that
# people do use, SmolLM2 {cite}`allal2025`, in the same languages, and its weights were rounded. Who holds how
# much cannot be dealt here. What stands in for it is how many bits a text takes before anything is rounded.

# %% tags=["hide-input"]
model = smollm2.load()
real.what_full_means(model)

# %% tags=["hide-input"]
real.picture(model)

# %% tags=["hide-input"]
real.of_eight_bits(model)

# %% tags=["hide-input"]
real.of_english(model)

# %% tags=["hide-input"]
real.of_the_order(model)

# %% tags=["hide-input"]
real.of_steepness(model)

# %% [markdown]
# Language by language, from the one whose text takes the fewest bits; then all treatments, with torchao's own
# layers among them. [The questions](../book/registered) were written down first, and each number has a row in
# `book/measured/smollm2.csv`.

# %% tags=["hide-input"]
real.shown(model)

# %% tags=["hide-input"]
real.beside(model)

# %% [markdown]
# ## What this does not show
#
# - Whether it holds for a network that has read a thousand million words. There, having less text and being
#   less well learned go together as here, but nobody can deal it anew.
# - What a language costs in a model whose tokens were chosen for other languages. Here a token is a byte.
# - Anything about the people who speak it.
#
# `fairq run 07 -p seed=1` trains another network, `-p languages='["English", "Greek", "Thai", "Korean"]'` one
# of four languages. `fairq results measure declaration` measures the sixteen again.
