"""The loss around a language model, language by language, on equally many bytes of each."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from fairq_utils.curvature.hessian import Hessian, Parameters
from fairq_utils.curvature.spectrum import Eigenvalue, NotConverged, top_eigenvalue
from fairq_utils.errors import BadInput
from fairq_utils.language.decoder import ByteDecoder, byte_loss
from fairq_utils.language.texts import Part, Texts, windows


@dataclass(frozen=True, kw_only=True)
class LanguageSurvey:
    """How the loss around a network is measured, alike for every language and every network.

    `windows_per_language`: so many, each as long as the context of the network.
    `part`: of which articles. Of those for training the network is near an optimum, which is where the theory
    speaks; those of the test are the same in every language.
    `tol`, `max_iterations`: as for `top_eigenvalue` of `fairq_utils.curvature`.

    >>> LanguageSurvey(windows_per_language=0)
    Traceback (most recent call last):
        ...
    fairq_utils.errors.BadInput: windows_per_language is 0; expected a whole number of at least 1.
    """

    windows_per_language: int = 16
    part: Part = "test"
    tol: float = 0.1
    max_iterations: int = 30

    def __post_init__(self) -> None:
        for name in ("windows_per_language", "max_iterations"):
            if type(value := getattr(self, name)) is not int or value < 1:
                raise BadInput(f"{name} is {value!r}; expected a whole number of at least 1.")
        if not self.tol > 0:
            raise BadInput(f"tol is {self.tol!r}; expected a number above 0, such as 0.1.")


def landscape_by_language(
    network: ByteDecoder,
    texts: Texts,
    survey: LanguageSurvey = LanguageSurvey(),
    *,
    seed: int = 0,
    parameters: Parameters = "weights",
) -> pd.DataFrame:
    """Loss, gradient norm and top eigenvalue of each language at the network, with respect to its weights.

    The seed draws the windows, which begin at the same shares of the way through the text of each language.
    `squared_gradient_norm` estimates, without bias, the square of the norm on all windows there could be; it
    may be below 0. Where an eigenvalue was not reached, `converged` is false, and value and residual are
    where it stopped.

    >>> from fairq_utils.language.articles import DeclarationSettings, draw_declaration
    >>> texts = draw_declaration(DeclarationSettings(languages=("English", "Greek", "Thai", "Korean")))
    >>> network = ByteDecoder(width=8, depth=1, heads=2, context=16)
    >>> table = landscape_by_language(network, texts, LanguageSurvey(windows_per_language=2))
    >>> table.columns.tolist()
    ['language', 'loss', 'gradient_norm', 'squared_gradient_norm', 'eigenvalue', 'residual', 'iterations',
     'converged']
    """
    rows = []
    each = survey.windows_per_language
    drawn = windows(texts, each=each, length=network.context, part=survey.part, seed=seed)
    for language, shown in drawn.items():
        text, following = shown[:, :-1], shown[:, 1:]
        hessian = Hessian(network, text, following, loss=byte_loss, parameters=parameters)
        of_gradient = (hessian.loss(), hessian.gradient().norm().item(), hessian.squared_gradient_norm())
        try:
            top: Eigenvalue | NotConverged = top_eigenvalue(
                network,
                text,
                following,
                tol=survey.tol,
                max_iterations=survey.max_iterations,
                seed=seed,
                loss=byte_loss,
                parameters=parameters,
            )
        except NotConverged as error:
            top = error
        converged = isinstance(top, Eigenvalue)
        rows.append([language, *of_gradient, top.value, top.residual, top.iterations, converged])
    return pd.DataFrame(rows, columns=["language", *_OF_GRADIENT, *_OF_EIGENVALUE])


_OF_GRADIENT = ("loss", "gradient_norm", "squared_gradient_norm")
_OF_EIGENVALUE = ("eigenvalue", "residual", "iterations", "converged")
