"""The semantic cache: the questions that have answers, and what became of jobs that asked the same in other words."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from headrace.tables.columns import created_at, metadata, moment, one_of

cache_entries = sa.Table(
    "cache_entries",
    metadata,
    sa.Column(
        "job_id", sa.Uuid, primary_key=True, comment="The job whose answer may serve. Its texts have the question."
    ),
    sa.Column("app_id", sa.ForeignKey("apps.id", ondelete="CASCADE"), nullable=False),
    sa.Column("pool", sa.Text, nullable=False),
    sa.Column("scope", sa.LargeBinary, nullable=False, comment="SHA-256 of all but the question's words."),
    sa.Column("digest", sa.LargeBinary, nullable=False, comment="SHA-256 of the question: one entry for each."),
    sa.Column(
        "fingerprints",
        ARRAY(sa.LargeBinary),
        comment="What a search finds it by: hashes of the scope and of what both questions must have in common.",
    ),
    # No column of pgvector's type, so that the schema is the same without the extension. Searches cast.
    sa.Column("embedding", ARRAY(sa.REAL), nullable=False, comment="Of the question."),
    created_at(),
    sa.Column(
        "used_at",
        sa.TIMESTAMP(timezone=True),
        nullable=False,
        server_default=sa.func.now(),
        comment="When it last matched a job. Of an app with too many entries, those unused for longest are deleted.",
    ),
    # A unique constraint could not leave its name.
    sa.Index("uq_cache_entries_question", "app_id", "scope", "digest", unique=True),
    # Without the list of pending entries, which every search would read as a whole.
    sa.Index(
        "ix_cache_entries_fingerprints", "fingerprints", postgresql_using="gin", postgresql_with={"fastupdate": "off"}
    ),
    comment="Questions of the semantic cache. One whose job has no answer serves nothing.",
)

cache_matches = sa.Table(
    "cache_matches",
    metadata,
    sa.Column("job_id", sa.Uuid, primary_key=True, comment="The job that asked."),
    sa.Column("app_id", sa.ForeignKey("apps.id", ondelete="CASCADE"), nullable=False),
    sa.Column("pool", sa.Text, nullable=False),
    sa.Column("entry_id", sa.Uuid, nullable=False, comment="The entry's job."),
    sa.Column("similarity", sa.Float, nullable=False, comment="Of both questions' embeddings, a cosine."),
    sa.Column(
        "kind",
        sa.Text,
        nullable=False,
        comment="served: with the entry's answer. The others ran. try: to test the entry; recheck: to test one that "
        "may serve; shadow: because the pool serves nothing.",
    ),
    sa.Column("at", sa.TIMESTAMP(timezone=True), nullable=False, server_default=sa.func.now()),
    sa.Column("is_right", sa.Boolean, comment="Whether its own answer agrees with the entry's; NULL: not compared."),
    moment("judge_at", comment="When to look for its answer next; NULL: no more."),
    one_of("kind", ("served", "try", "recheck", "shadow"), "kind"),
    sa.Index("ix_cache_matches_tries", "entry_id", "at", postgresql_where=sa.text("is_right IS NOT NULL")),
    sa.Index("ix_cache_matches_record", "app_id", "pool", "at", postgresql_where=sa.text("is_right IS NOT NULL")),
    sa.Index("ix_cache_matches_judge_at", "judge_at", postgresql_where=sa.text("judge_at IS NOT NULL")),
    sa.Index("ix_cache_matches_at", "at"),
    comment="Jobs for which the semantic cache had an entry that the guard let pass. They have no text.",
)
