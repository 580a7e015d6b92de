"""Below the parameters of a chapter a box that says how to run it again: the command, the values, the files.

All is read off the chapter and the parameters of this book, so that none of it can be out of date.
"""

import json
import shlex

import executed_chapters

from fairq_book.build import notebooks

BOX = """\
::::{{dropdown}} Run this chapter again

This page was made by

```sh
{command}
```

With other values the chapter runs again, on networks that it trains or finds. Behind each parameter stands
what it is if nothing is said.

{listed}

With papermill, in one line:

```sh
{papermill}
```

The chapter as a notebook: {{download}}`{slug}.ipynb`, and as a script: {{download}}`{slug}.py`.
::::"""


def text(value):
    """A value as it is typed behind `-p name=`."""
    return shlex.quote(value if isinstance(value, str) else json.dumps(value))


def box(chapter, values):
    """The box, for a book in which the chapter ran with these values."""
    own = {name: value for name, value in values.items() if value != chapter.parameters[name].default}
    given = [f"-p {name}={text(value)}" for name, value in own.items()]
    listed = [
        f"- **`{parameter.name}`** `{json.dumps(parameter.default)}`"
        + (f", here `{json.dumps(own[parameter.name])}`" if parameter.name in own else "")
        + f": {parameter.help}"
        for parameter in chapter.parameters.values()
    ]
    papermill = f"papermill notebooks/{chapter.notebook.name} out.ipynb"
    return BOX.format(
        command=" \\\n  ".join([f"fairq run {chapter.slug[:2]}", *given]),
        listed="\n".join(listed),
        papermill=papermill + (f" -y {shlex.quote(json.dumps(own))}" if own else ""),
        slug=chapter.slug,
    )


def add_box(app, docname, source):
    """Below the parameters of the chapter."""
    for chapter in notebooks.chapters():
        if docname == f"notebooks/{chapter.slug}":
            values = executed_chapters.parameters().get(chapter.slug, {})
            text = box(chapter, chapter.check(values))
            source[0] = executed_chapters.below_parameters(source[0], "run-again", text)


def setup(app):
    """Called by Sphinx."""
    app.connect("source-read", add_box, priority=850)  # after the executed notebook was put there
    return {"parallel_read_safe": True, "parallel_write_safe": True, "version": "1"}
