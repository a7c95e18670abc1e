"""A validator of the part of JSON Schema (draft 2020-12) that face.schema.json uses; any other keyword is an error."""

TYPES = {
    "object": dict, "array": list, "string": str, "number": (int, float), "integer": int, "null": type(None),
}  # fmt: skip
NOTES = {"$schema", "$defs", "title", "description"}


def problems(value, schema: dict, root: dict | None = None, place: str = "$") -> list[str]:
    """What is wrong with a value, a line each."""
    root = root or schema
    found: list[str] = []
    if "$ref" in schema:
        target = root
        for key in schema["$ref"].removeprefix("#/").split("/"):
            target = target[key]
        found += problems(value, target, root, place)
    for keyword, expected in schema.items():
        if keyword in NOTES or keyword == "$ref":
            continue
        elif keyword == "type":
            names = [expected] if isinstance(expected, str) else expected
            if not any(isinstance(value, TYPES[name]) and not isinstance(value, bool) for name in names):
                found.append(f"{place}: {type(value).__name__} is no {expected}")
        elif keyword == "const":
            found += [f"{place}: not {expected!r}"] * (value != expected)
        elif keyword in ("minimum", "maximum", "exclusiveMinimum"):
            if isinstance(value, int | float):
                good = {
                    "minimum": value >= expected,
                    "maximum": value <= expected,
                    "exclusiveMinimum": value > expected,
                }
                found += [f"{place}: {value} breaks {keyword} {expected}"] * (not good[keyword])
        elif keyword in ("minItems", "maxItems"):
            if isinstance(value, list):
                good = len(value) >= expected if keyword == "minItems" else len(value) <= expected
                found += [f"{place}: {len(value)} items break {keyword} {expected}"] * (not good)
        elif keyword == "items":
            for index, item in enumerate(value if isinstance(value, list) else ()):
                found += problems(item, expected, root, f"{place}[{index}]")
        elif keyword == "required":
            found += [f"{place}: lacks {name}" for name in expected if isinstance(value, dict) and name not in value]
        elif keyword == "properties":
            for name in expected.keys() & (value if isinstance(value, dict) else {}):
                found += problems(value[name], expected[name], root, f"{place}.{name}")
        elif keyword == "additionalProperties":
            extra = value.keys() - schema.get("properties", {}) if isinstance(value, dict) else ()
            for name in extra:
                if expected is False:
                    found.append(f"{place}: has {name} in excess")
                elif expected is not True:
                    found += problems(value[name], expected, root, f"{place}.{name}")
        else:
            raise ValueError(f"the validator does not know {keyword!r}")
    return found
