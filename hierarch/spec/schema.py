"""The JSON Schema of specs, for completion and hover text in editors, with all registered parts."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from hierarch.spec.backbone import BackboneSpec
from hierarch.spec.base import Spec
from hierarch.spec.parts import KINDS
from hierarch.spec.registry import PLACEHOLDER, get, names


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a backbone's YAML, with every registered part.

    >>> sorted(schema()["required"])
    ['stages']
    """
    root = BackboneSpec.model_json_schema(schema_generator=_Generator)
    definitions = root.pop("$defs")
    for kind in KINDS:
        parts = names(kind)
        for name in parts:
            part = get(kind, name).model_json_schema(schema_generator=_Generator)
            definitions |= part.pop("$defs", {})
            definitions[f"{kind}.{name}"] = part
        mappings = [{"$ref": f"#/$defs/{kind}.{name}"} for name in parts]
        definitions[kind] = {"anyOf": [{"type": "string", "enum": parts}, *mappings]}
    return _document("backbone", {**root, "$defs": definitions})


def document_schema(model: type[Spec], word: str) -> dict[str, Any]:
    """The JSON Schema of another kind of document, as errors call it: a recipe, a grid."""
    return _document(word, model.model_json_schema())


def _document(word: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"hierarch {word}",
        **_cleaned(schema),
    }


class _Generator(GenerateJsonSchema):
    """Makes `type` required in the mapping of a part."""

    def model_schema(self, schema: Any) -> dict[str, Any]:
        generated = super().model_schema(schema)
        if "type" in generated.get("properties", {}):
            generated["required"] = list(
                {"type": None, **dict.fromkeys(generated.get("required", ()))}
            )
        return generated


def _cleaned(node: Any, key: str = "") -> Any:
    """The schema with a reference in each field whose value is a part, without titles, and without
    the examples of descriptions."""
    if key == "description" and isinstance(node, str):
        return node.partition("\n\n>>>")[0]
    if isinstance(node, list):
        return [_cleaned(item) for item in node]
    if not isinstance(node, dict):
        return node
    kind = node.get(PLACEHOLDER)
    reference = {"$ref": f"#/$defs/{kind}"} if kind else {}
    return reference | {
        key: _cleaned(value, key)
        for key, value in node.items()
        # pydantic's titles repeat the fields' names
        if key != PLACEHOLDER and not (key == "title" and isinstance(value, str))
    }
