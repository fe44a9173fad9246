"""The JSON Schema of a spec: completion and hover text in an editor, for every registered part."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from hierarch.spec.backbone import BackboneSpec


class _Generator(GenerateJsonSchema):
    """Requires what names a part, since without it a mapping says nothing."""

    def model_schema(self, schema: Any) -> dict[str, Any]:
        generated = super().model_schema(schema)
        if "const" in generated.get("properties", {}).get("type", {}):
            generated["required"] = ["type", *generated.get("required", [])]
        return generated


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a backbone's YAML, with all registered mixers in it."""
    generated = BackboneSpec.model_json_schema(schema_generator=_Generator)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **generated,
        "title": "hierarch backbone",
    }
