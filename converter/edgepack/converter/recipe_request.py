"""Fills what a request leaves open with what a recipe says. Pure."""

from dataclasses import replace

from edgepack.converter.recipe import Recipe
from edgepack.converter.request import ConvertRequest


def with_recipe(request: ConvertRequest, recipe: Recipe) -> ConvertRequest:
    """The request, with the recipe's values where it has none of its own."""
    model, convert = recipe.model, recipe.convert
    said = {name: getattr(convert, name) for name in ("rtol", "atol", "max_drop")}
    tolerances = replace(
        request.tolerances, **{name: value for name, value in said.items() if value is not None}
    )
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
