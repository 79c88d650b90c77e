"""The keys that the schemas at one place in a document declare, and where references lead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from jaxphoton.constraints.keywords import Path
from jaxphoton.constraints.schema import SchemaError, check_well_formed
from jaxphoton.messages import quoted

GROUPS = ("anyOf", "oneOf")


@dataclass(frozen=True, slots=True)
class Names:
    """What the schemas at one place declare.

    Attributes:
      keys: of properties, in the order of the source, and of required.
      patterns: of patternProperties.
      declares: some schema has properties or patternProperties.
      open: some schema has additionalProperties other than false.
      order: of all keys of the place, as they are to be written; of the left side in a union.
    """

    keys: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    declares: bool = False
    open: bool = False
    order: tuple[str, ...] = ()

    def __or__(self, other: Names) -> Names:
        return Names(
            tuple(dict.fromkeys(self.keys + other.keys)),
            tuple(dict.fromkeys(self.patterns + other.patterns)),
            self.declares or other.declares,
            self.open or other.open,
            self.order,
        )


def own_names(schema: dict[str, Any]) -> Names:
    """Without what its allOf, anyOf, oneOf and $ref bring."""
    keys, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    return Names(
        tuple(dict.fromkeys((*keys, *schema.get("required", ())))),
        tuple(patterns),
        bool(keys or patterns),
        schema.get("additionalProperties", False) is not False,
    )


class References:
    """Finds what `$ref` names inside one schema."""

    def __init__(self, root: Any, draft: str):
        self._root, self._draft = root, draft
        self._targets: dict[str, Any] = {}
        self._names: dict[str, Names | None] = {}  # None: being looked for

    def names(self, schema: Any, path: Path) -> Names:
        """All that is declared at the place of a schema.

        Raises:
          SchemaError: a reference that leads nowhere, or back to itself at the same place.
        """
        if isinstance(schema, bool):
            return Names()
        names = Names()
        for keyword, value in schema.items():
            if keyword == "properties":
                names |= Names(tuple(value))
            elif keyword == "$ref":
                names |= self._referred(value, path)
            elif keyword in ("allOf", *GROUPS):
                for each in value:
                    names |= self.names(each, path)
        return names | own_names(schema)

    def target(self, reference: str, path: Path = ()) -> Any:
        """The schema that a reference names.

        Raises:
          SchemaError: it is not inside, or no schema.
        """
        if reference not in self._targets:
            found = self._find(reference, path)
            definitions = "definitions" if self._draft.startswith("http:") else "$defs"
            segments = reference.split("/")
            # The root was looked over with all that lies where a schema is expected.
            if segments != ["#"] and (len(segments) != 3 or segments[1] != definitions):
                check_well_formed(found, self._draft, (reference,))
            self._targets[reference] = found
        return self._targets[reference]

    def _referred(self, reference: str, path: Path) -> Names:
        if reference not in self._names:
            self._names[reference] = None
            self._names[reference] = self.names(self.target(reference, path), path)
        names = self._names[reference]
        if names is None:
            raise SchemaError(f"$ref {quoted(reference)} leads back to itself", path)
        return names

    def _find(self, reference: str, path: Path) -> Any:
        pointer = unquote(reference)
        if pointer != "#" and not pointer.startswith("#/"):
            raise SchemaError(f"$ref {quoted(reference)} is not supported, only those inside the schema: #/...", path)
        found = self._root
        for segment in pointer.split("/")[1:]:
            key = segment.replace("~1", "/").replace("~0", "~")
            if isinstance(found, list) and key.isascii() and key.isdigit() and len(key) < 9 and int(key) < len(found):
                found = found[int(key)]
            elif isinstance(found, dict) and key in found:
                found = found[key]
            else:
                raise SchemaError(f"$ref {quoted(reference)} leads nowhere", path)
        if not isinstance(found, (dict, bool)):
            raise SchemaError(f"$ref {quoted(reference)} leads to no schema", path)
        return found
