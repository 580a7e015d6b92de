"""What was measured, by this book and earlier, on its pages: verdicts and numbers, none of them typed.

A setting is one that was measured earlier, or `here`: what the chapters of this book measured.

`` {overview} `` draws a word for every claim in every setting, `` {claims} `` all that is behind it;
`` {how-many} `` counts them; `` {in-plain-words} `` says what stands in one, `` {choices} `` what another
choice would have given there, and `` {provenance} `` where all of it comes from.
`` {by-width} `` draws a word for each width, and `` {specifications} `` every way to ask the first claim.
`` {front} `` opens the book: three answers, each with a figure; `` {found} `` says again what chapters open
with. The role `` {declared}`utkface image_size` `` is what that setting says.
"""

import functools
import importlib

import executed_chapters
from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList

from fairq_book.build import notebooks
from fairq_book.experiments.code import code_files
from fairq_book.kit import by_network, earlier, told
from fairq_book.pages import claims, front, plain_words, specifications


def depend_on_results(env):
    """The page is read again when a table, or the code or template that says it, has changed."""
    # Files alone: a page that depends on a folder is read again each time.
    folder = earlier.earlier_folder()
    code = code_files("fairq_book.pages.claims") | code_files("fairq_book.kit.figures")
    templates = claims.TEMPLATES.glob("*.html")
    for file in (*folder.glob("*/provenance.json"), *code.values(), *templates):
        env.note_dependency(str(file))


@functools.cache
def here():
    """What the chapters of this book measured."""
    return notebooks.measured_by(executed_chapters.parameters())


def settings(names):
    """The settings of these names."""
    return {name: here() if name == "here" else earlier.load(name) for name in names}


class Overview(Directive):
    """The claims of these settings, at a glance."""

    required_arguments = 1
    optional_arguments = 9
    draw = staticmethod(claims.overview)

    def run(self):
        """Called by docutils."""
        depend_on_results(self.state.document.settings.env)
        return [nodes.raw("", self.draw(settings(self.arguments))._repr_html_(), format="html")]


class Claims(Overview):
    """The claims of these settings with numbers, reasons and sources."""

    draw = staticmethod(claims.page)


class Why(Directive):
    """The registered questions on who pays and why, with what networks of these settings answer."""

    required_arguments = 1
    optional_arguments = 9
    draw = staticmethod(claims.why)

    def run(self):
        """Called by docutils."""
        env = self.state.document.settings.env
        depend_on_results(env)
        for file in by_network.measured_folder().glob("*.csv"):
            env.note_dependency(str(file))
        found = by_network.measured(self.arguments)
        return [nodes.raw("", self.draw(found)._repr_html_(), format="html")]


class Repairs(Why):
    """The registered questions on what repairs, with what networks of these settings answer."""

    draw = staticmethod(claims.repairs)


class ByWidth(Why):
    """What was asked at several widths: as many settings on who pays as on what repairs."""

    @staticmethod
    def draw(found):
        """The first half of the settings answers who pays, the second what repairs."""
        half = len(found) // 2
        return claims.by_width(found[:half], found[half:])


class Specifications(Why):
    """Whether the smaller groups pay, in every way that networks of these settings were asked."""

    draw = staticmethod(specifications.curve)


class HowMany(Overview):
    """How many verdicts there are, and how many of them stay when all are allowed for."""

    draw = staticmethod(claims.how_many)


class InPlainWords(Directive):
    """What stands in one setting, what does not, and what is open; read as if it stood in the page."""

    required_arguments = 1
    say = staticmethod(plain_words.in_plain_words)

    def run(self):
        """Called by docutils."""
        depend_on_results(self.state.document.settings.env)
        place = nodes.container(classes=["fairq-computed"])
        lines = self.say(earlier.load(self.arguments[0])).text.splitlines()
        self.state.nested_parse(StringList(lines, source="computed"), self.content_offset, place)
        return [place]


class Front(Directive):
    """Who pays, why, and what repairs it: a few sentences each, and a figure beside them."""

    def run(self):
        """Called by docutils."""
        env = self.state.document.settings.env
        depend_on_results(env)
        for file in (
            *by_network.measured_folder().glob("*.csv"),
            *code_files("fairq_book.pages.front").values(),
        ):
            env.note_dependency(str(file))
        return [self._answer(*one) for one in front.ANSWERS]

    def _answer(self, sentence, picture, setting):
        networks = told.networks_of(setting)
        words, answer = nodes.container(), nodes.container(classes=["fairq-answer"])
        lines = sentence(networks).text.splitlines()
        self.state.nested_parse(StringList(lines, source="computed"), self.content_offset, words)
        answer += [words, nodes.raw("", picture(networks)._repr_html_(), format="html")]
        return answer


class Found(Directive):
    """Sentences that chapters open with, by chapter and name: `disparity.most_of_the_gap_is_older`."""

    required_arguments = 1
    optional_arguments = 9

    def run(self):
        """Called by docutils."""
        env = self.state.document.settings.env
        for file in by_network.measured_folder().glob("*.csv"):
            env.note_dependency(str(file))
        sentences = []
        for argument in self.arguments:
            chapter, _, name = argument.partition(".")
            module = f"fairq_book.chapters.{chapter}.found"
            for file in code_files(module).values():
                env.note_dependency(str(file))
            sentences.append(getattr(importlib.import_module(module), name))
        place = nodes.container(classes=["fairq-computed"])
        lines = told.tell(*sentences).text.splitlines()
        self.state.nested_parse(StringList(lines, source="computed"), self.content_offset, place)
        return [place]


class Choices(Directive):
    """What another choice would have given, in one setting."""

    required_arguments = 1

    def run(self):
        """Called by docutils."""
        depend_on_results(self.state.document.settings.env)
        own = earlier.load(self.arguments[0])
        return [nodes.raw("", claims.choices(own)._repr_html_(), format="html")]


class Provenance(Directive):
    """A line for each setting: seeds, code, machine and date."""

    def run(self):
        """Called by docutils."""
        depend_on_results(self.state.document.settings.env)
        return [nodes.raw("", claims.provenance(earlier.every())._repr_html_(), format="html")]


def declared(_, rawtext, text, lineno, inliner, options=None, content=None):
    """What a setting that was measured earlier fixed: called by docutils."""
    depend_on_results(inliner.document.settings.env)
    name, _, field = text.partition(" ")
    return [nodes.Text(earlier.said_of(name, field))], []


def setup(app):
    """Called by Sphinx."""
    app.add_role("declared", declared)
    app.add_directive("overview", Overview)
    app.add_directive("claims", Claims)
    app.add_directive("how-many", HowMany)
    app.add_directive("in-plain-words", InPlainWords)
    app.add_directive("front", Front)
    app.add_directive("found", Found)
    app.add_directive("choices", Choices)
    app.add_directive("why", Why)
    app.add_directive("repairs", Repairs)
    app.add_directive("specifications", Specifications)
    app.add_directive("by-width", ByWidth)
    app.add_directive("provenance", Provenance)
    return {
        "parallel_read_safe": True,
        "parallel_write_safe": True,
        "version": "1",
        "env_version": 2,  # since pages depend on code too
    }
