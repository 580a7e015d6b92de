"""Buttons that lead out of the book: to its source, and to Binder, which runs a chapter in the browser.

There are some when `repository.url` in _config.yml says where the project lies, and none otherwise. Colab is
not among them: it would open a notebook without the package that the notebook needs. What Binder installs
stands in .binder.
"""

BINDER = "https://mybinder.org"


def offer(app, config):
    """Tell the theme, before it draws a page."""
    options = config.html_theme_options
    if not options.get("repository_url"):
        return
    options["use_repository_button"] = options["use_source_button"] = True
    options["launch_buttons"] = {"binderhub_url": BINDER, "notebook_interface": "jupyterlab"}


def setup(app):
    """Called by Sphinx."""
    app.connect("config-inited", offer)
    return {"parallel_read_safe": True, "parallel_write_safe": True, "version": "1"}
