"""What the book keeps of data that it may not hold, on its pages: verdicts and numbers, none of them typed.

`` {claims} `` draws every claim in every setting, `` {in-plain-words}`utkface` `` says what stands in one,
`` {choices}`utkface` `` what another choice would have given there, and `` {provenance} `` where all of it
comes from. `` {kept}`utkface accuracy OA fp32 estimate` `` is a role for one number.
"""

import html

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList

from fairq_utils import claims, results, verdicts


def depend_on_results(env):
    """The page is read again when a table, or what is declared, has changed."""
    for record in results.results_folder().glob("*/provenance.json"):
        env.note_dependency(str(record))
    env.note_dependency(str(results.book_root() / "book" / "settings.yml"))


def shown(names):
    """The settings of the claims page, in the order in which they are declared."""
    return {name: own for name, own in results.stored().items() if not names or name in names}


class Claims(Directive):
    """The table of claims, for these settings."""

    optional_arguments = 9

    def run(self):
        """Called by docutils."""
        depend_on_results(self.state.document.settings.env)
        return [nodes.raw("", verdicts.page(shown(self.arguments))._repr_html_(), format="html")]


class InPlainWords(Directive):
    """What stands in one setting, what does not, and what is open; read as if it stood in the page."""

    required_arguments = 1

    def run(self):
        """Called by docutils."""
        depend_on_results(self.state.document.settings.env)
        place = nodes.container()
        lines = verdicts.in_plain_words(results.load(self.arguments[0])).text.splitlines()
        self.state.nested_parse(StringList(lines, source="computed"), self.content_offset, place)
        return place.children


class Choices(Directive):
    """What another choice would have given, in one setting."""

    required_arguments = 1

    def run(self):
        """Called by docutils."""
        depend_on_results(self.state.document.settings.env)
        own = results.load(self.arguments[0])
        return [nodes.raw("", verdicts.choices(own)._repr_html_(), format="html")]


class Sizes(Directive):
    """What another size of images gives, setting by setting."""

    required_arguments = 2

    def run(self):
        """Called by docutils."""
        depend_on_results(self.state.document.settings.env)
        own = [results.load(name) for name in self.arguments]
        return [nodes.raw("", verdicts.sizes(own)._repr_html_(), format="html")]


class Provenance(Directive):
    """A line for each setting: seeds, revision, machine, date, and the command that makes it."""

    def run(self):
        """Called by docutils."""
        depend_on_results(self.state.document.settings.env)
        return [nodes.raw("", verdicts.provenance(results.stored())._repr_html_(), format="html")]


def kept(role, rawtext, text, lineno, inliner, options=None, content=None):
    """One number: a setting, `accuracy` or `change`, a group, a treatment, and a column."""
    depend_on_results(inliner.document.settings.env)
    try:
        setting, table, group, treatment, column = text.split()
        rows = results.load(setting)[table]
        row = rows[(rows["group"] == group) & (rows["treatment"] == treatment)].iloc[0]
        value = row[column]
    except (ValueError, IndexError, KeyError):
        return [], [inliner.reporter.error(f"there is no number {text!r}", line=lineno)]
    said = claims.points(value) if table == "change" else claims.percent(value)
    return [nodes.Text(html.unescape(said))], []


def setup(app):
    """Called by Sphinx."""
    app.add_directive("claims", Claims)
    app.add_directive("in-plain-words", InPlainWords)
    app.add_directive("choices", Choices)
    app.add_directive("sizes", Sizes)
    app.add_directive("provenance", Provenance)
    app.add_role("kept", kept)
    return {"parallel_read_safe": True, "parallel_write_safe": True, "version": "1"}
