"""The settings that `skerry up` would use here: the table, with this machine's defaults."""

import os
from pathlib import Path

from skerry.cli.invoker import default_data_dir, invoker
from skerry.cli.manifest import built_defaults
from skerry.cli.resolv_conf import host_resolvers
from skerry.cli.settings import CONFIG_ENV, resolve
from skerry.spec.settings import Settings


def settings_here(
    *,
    data_dir: Path | None = None,
    listen: str | None = None,
    allow_remote: bool | None = None,
    config: Path | None = None,
) -> Settings:
    """Resolve the settings from flags, the environment and the file.

    Raises:
        BadSettings: Some are wrong.
    """
    file = config or (Path(os.environ[CONFIG_ENV]) if os.environ.get(CONFIG_ENV) else None)
    return resolve(
        flags={
            "data_dir": None if data_dir is None else str(data_dir.absolute()),
            "listen": listen,
            "allow_remote": allow_remote,
        },
        env=os.environ,
        config=file,
        fallbacks={
            "data_dir": str(default_data_dir(invoker())),
            "egress.resolvers": host_resolvers(),
            **built_defaults(),
        },
    )
