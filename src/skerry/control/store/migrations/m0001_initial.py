"""The first schema: sandboxes, tokens, meta."""

from typing import TYPE_CHECKING

import sqlalchemy as sa

if TYPE_CHECKING:
    from alembic.operations import Operations


def upgrade(op: "Operations") -> None:
    """From an empty database to version 1."""
    op.create_table(
        "sandboxes",
        sa.Column("sandbox_id", sa.Text, primary_key=True),
        sa.Column("owner", sa.Text),
        sa.Column("token_id", sa.Text),
        sa.Column("stage", sa.Text, nullable=False),
        sa.Column("boot_id", sa.Text, nullable=False),
        sa.Column("isolation", sa.Text, nullable=False),
        sa.Column("image", sa.Text, nullable=False),
        sa.Column("image_digest", sa.Text, nullable=False),
        sa.Column("memory_mib", sa.Integer, nullable=False),
        sa.Column("cpus", sa.Float, nullable=False),
        sa.Column("disk_mib", sa.Integer, nullable=False),
        sa.Column("max_processes", sa.Integer, nullable=False),
        sa.Column("session", sa.Boolean, nullable=False),
        sa.Column("stop_at_ms", sa.BigInteger),
        sa.Column("labels", sa.Text, nullable=False),
        sa.Column("created_at_ms", sa.BigInteger, nullable=False),
        sa.Column("stopped_at_ms", sa.BigInteger),
        sa.Column("end_reason", sa.Text),
        sa.Column("exit_code", sa.Integer),
    )
    occupying = sa.text("stage IN ('starting', 'running') AND owner IS NOT NULL")
    op.create_index("sandboxes_occupying", "sandboxes", ["owner", "token_id"], sqlite_where=occupying)
    op.create_index("sandboxes_of_owner", "sandboxes", ["owner", "created_at_ms"])
    op.create_index(
        "sandboxes_stopped", "sandboxes", ["stopped_at_ms"], sqlite_where=sa.text("stage = 'stopped'")
    )
    op.create_table(
        "tokens",
        sa.Column("token_id", sa.Text, primary_key=True),
        sa.Column("sha256", sa.Text, nullable=False, unique=True),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("scopes", sa.Text, nullable=False),
        sa.Column("created_at_ms", sa.BigInteger, nullable=False),
        sa.Column("expires_at_ms", sa.BigInteger),
        sa.Column("revoked_at_ms", sa.BigInteger),
        sa.Column("max_running", sa.Integer),
    )
    op.create_table(
        "meta",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )
