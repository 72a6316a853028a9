"""What sandboxes may reach: their intent, named policies, and the policy that a token asks for by default."""

from typing import TYPE_CHECKING

import sqlalchemy as sa

if TYPE_CHECKING:
    from alembic.operations import Operations


def upgrade(op: "Operations") -> None:
    """From version 1 to version 2. Sandboxes that run keep what they had: no network."""
    op.add_column("sandboxes", sa.Column("egress", sa.Text))
    op.add_column("tokens", sa.Column("policy", sa.Text))
    op.create_table(
        "policies",
        sa.Column("owner", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("updated_at_ms", sa.BigInteger, nullable=False),
    )
