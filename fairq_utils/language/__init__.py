"""One text in many languages, and a small network that reads it byte by byte."""

from fairq_utils.language.articles import DeclarationSettings, deal, draw_declaration
from fairq_utils.language.texts import Texts, windows

__all__ = [
    "DeclarationSettings",
    "Texts",
    "deal",
    "draw_declaration",
    "windows",
]
