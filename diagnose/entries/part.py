"""What every part of run.json has in common."""

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Strict

# A value with its 95% bounds, and the bounds alone.
Bounded = Annotated[tuple[float, float, float], Strict(False)]
Interval = Annotated[tuple[float, float], Strict(False)]


class Part(BaseModel):
    """A part of a record. Types are held to as they are, so that a damaged file is refused; entries
    that are not known are left out."""

    model_config = ConfigDict(frozen=True, strict=True, validate_by_name=True)

    def to_json(self) -> dict[str, Any]:
        """As stored, in the types of JSON: only the entries that were set, so that a record of an
        earlier version does not claim to know what it does not."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)

    def changed(self, **entries: Any) -> Self:
        """The same with some entries changed. TypeError for one that there is not; pydantic's
        ValidationError, which is a ValueError, for a value that does not fit."""
        unknown = entries.keys() - type(self).model_fields.keys()
        if unknown:
            raise TypeError(f"{type(self).__name__} has no entry {min(unknown)}")
        kept = {name: getattr(self, name) for name in self.model_fields_set}
        return self.model_validate({**kept, **entries})
