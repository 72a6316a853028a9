"""Make ``docs/policy.schema.json``: ``python -m skerry.policy.schema_page > docs/policy.schema.json``."""

import json
import sys

from skerry.policy.reading import schema


def page() -> str:
    """The whole file."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(page())
