"""One text in many languages, and a small network that reads it byte by byte."""

from fairq_utils.language.articles import DeclarationSettings, deal, draw_declaration
from fairq_utils.language.continuing import continue_texts
from fairq_utils.language.decoder import ByteDecoder, byte_loss, scale_norms
from fairq_utils.language.landscape import LanguageSurvey, landscape_by_language
from fairq_utils.language.llama import Llama, LlamaShape
from fairq_utils.language.llama_files import LanguageModel, read_llama
from fairq_utils.language.measures import ByteAnswers, answer_texts, by_article, by_language, changes
from fairq_utils.language.texts import Texts, windows
from fairq_utils.language.training import LanguageRecipe, fit_language, train_language
from fairq_utils.language.treatments import LanguageTreatment, train_as, treat

__all__ = [
    "ByteAnswers",
    "ByteDecoder",
    "DeclarationSettings",
    "LanguageModel",
    "LanguageRecipe",
    "LanguageSurvey",
    "LanguageTreatment",
    "Llama",
    "LlamaShape",
    "Texts",
    "answer_texts",
    "by_article",
    "by_language",
    "byte_loss",
    "changes",
    "continue_texts",
    "deal",
    "draw_declaration",
    "fit_language",
    "landscape_by_language",
    "read_llama",
    "scale_norms",
    "train_as",
    "train_language",
    "treat",
    "windows",
]
