"""The tables as they are now. `skerry.control.store.migrations` leads there from every earlier form; a test
proves that both agree.
"""

import sqlalchemy as sa

metadata = sa.MetaData()

OCCUPYING = "stage IN ('starting', 'running') AND owner IS NOT NULL"
"""Sandboxes that count against quotas. Text, not parameters: SQLite uses a partial index only if it can prove
the condition.
"""

STOPPED = "stage = 'stopped'"

sandboxes = sa.Table(
    "sandboxes",
    metadata,
    sa.Column("sandbox_id", sa.Text, primary_key=True),
    sa.Column("owner", sa.Text, comment="null: a member of the warm pool"),
    sa.Column("token_id", sa.Text, comment="the token that created it"),
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
    sa.Column("labels", sa.Text, nullable=False, comment="JSON"),
    sa.Column("created_at_ms", sa.BigInteger, nullable=False),
    sa.Column("stopped_at_ms", sa.BigInteger),
    sa.Column("end_reason", sa.Text),
    sa.Column("exit_code", sa.Integer),
    sa.Column("egress", sa.Text, comment="JSON; null: the gateway does not serve it"),
)
sa.Index("sandboxes_occupying", sandboxes.c.owner, sandboxes.c.token_id, sqlite_where=sa.text(OCCUPYING))
sa.Index("sandboxes_of_owner", sandboxes.c.owner, sandboxes.c.created_at_ms)
sa.Index("sandboxes_stopped", sandboxes.c.stopped_at_ms, sqlite_where=sa.text(STOPPED))

tokens = sa.Table(
    "tokens",
    metadata,
    sa.Column("token_id", sa.Text, primary_key=True),
    sa.Column(
        "sha256", sa.Text, nullable=False, unique=True, comment="of the token; the token itself is nowhere"
    ),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("scopes", sa.Text, nullable=False, comment="JSON"),
    sa.Column("created_at_ms", sa.BigInteger, nullable=False),
    sa.Column("expires_at_ms", sa.BigInteger),
    sa.Column("revoked_at_ms", sa.BigInteger),
    sa.Column("max_running", sa.Integer),
    sa.Column("policy", sa.Text, comment="name of the policy of its sandboxes whose label names none"),
)

policies = sa.Table(
    "policies",
    metadata,
    sa.Column("owner", sa.Text, primary_key=True, comment="empty: every owner may choose it"),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("document", sa.Text, nullable=False, comment="JSON"),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("updated_at_ms", sa.BigInteger, nullable=False),
)

meta = sa.Table(
    "meta",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)

COMPATIBLE_FROM = "compatible_from"
"""Row of `meta`: the oldest schema version whose code may still use this database."""
