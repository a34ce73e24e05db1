"""Fills what a request leaves open with what a recipe says. Pure."""

from dataclasses import replace

from edgepack.bundle.contract import Tolerances
from edgepack.converter.recipe import Recipe
from edgepack.converter.request import ConvertRequest


def with_recipe(request: ConvertRequest, recipe: Recipe) -> ConvertRequest:
    """The request, with the recipe's values where it has none of its own."""
    model, convert = recipe.model, recipe.convert
    usual = Tolerances()
    tolerances = request.tolerances
    for name in ("rtol", "atol", "max_drop"):
        said = getattr(convert, name)
        if said is not None and getattr(tolerances, name) == getattr(usual, name):
            tolerances = replace(tolerances, **{name: said})
    return replace(
        request,
        name=request.name or model.name,
        version=request.version or model.version,
        task=request.task or model.task,
        label=request.label or model.label,
        formats=request.formats or convert.formats,
        precision=request.precision or convert.precision or None,
        tolerances=tolerances,
    )
