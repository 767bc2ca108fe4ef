"""Files in OpenAI's format."""

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field

from api.schemas.fields import Answer, Page, QueryInt, Request
from headrace.domain.ids import show_id
from plugins.batches.domain import FILE_PREFIX, Purpose, StoredFile

#: Files on one page, at most, as OpenAI has it.
MOST_FILES = 10_000
#: The bounds of a file's life after its upload, in seconds, as OpenAI has them.
SHORTEST_S, LONGEST_S = 3600, 2_592_000


class FileForm(Request):
    """The fields of an upload beside the file itself."""

    model_config = ConfigDict(
        json_schema_extra={
            "dependentRequired": {
                "expires_after[anchor]": ["expires_after[seconds]"],
                "expires_after[seconds]": ["expires_after[anchor]"],
            }
        }
    )

    purpose: Literal["batch"] = Field(description="What the file is for.")
    expires_anchor: Annotated[Literal["created_at"] | None, Field(alias="expires_after[anchor]")] = None
    expires_s: Annotated[
        int | None,
        Field(
            alias="expires_after[seconds]",
            ge=SHORTEST_S,
            le=LONGEST_S,
            strict=False,
            description="Seconds after the upload after which the file is deleted.",
        ),
    ] = None


class FileBody(Answer):
    """One file."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: Purpose
    status: Literal["processed"] = "processed"
    status_details: None = None

    @classmethod
    def of(cls, file: StoredFile) -> Self:
        """A file as it stands."""
        return cls(
            id=show_id(file.id, FILE_PREFIX),
            bytes=file.size,
            created_at=int(file.created_at.timestamp()),
            expires_at=None if file.expires_at is None else int(file.expires_at.timestamp()),
            filename=file.filename,
            purpose=file.purpose,
        )


class FileList(Page):
    """One page of files."""

    data: list[FileBody]


class DeletedFile(Answer):
    """What is left of it."""

    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


class FilesQuery(Request):
    """The query string of a list."""

    purpose: Annotated[Purpose | None, Field(description="Only files for this.")] = None
    after: str | None = Field(None, description="The id of a file: the page begins with the one after it.")
    order: Literal["asc", "desc"] = Field("desc", description="By the time of the upload.")
    limit: QueryInt = Field(MOST_FILES, ge=1, le=MOST_FILES, description="Files on the page, at most.")
