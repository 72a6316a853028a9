"""After the start nothing may be imported: the interpreter's files may be out of reach once the privileges
are dropped.
"""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

PROGRAM = """
    import asyncio, builtins, sys
    from pathlib import Path
    from skerry.control.store.opening import preload
    from skerry.daemon.preload import API, preload as preload_everything
    from tests.harness.fake_clock import FakeClock
    from tests.harness.scripted_host import ScriptedHost
    from tests.harness.world import ADMIN, ALICE, MINUTE, SESSION, pool_filled, serving, settings

    directory = Path(sys.argv[1])
    preload_everything(API)
    preload(directory / "skerry.db")
    print("alembic" in sys.modules)
    late = []

    class Watch:
        def find_spec(self, name, path=None, target=None):
            late.append(name)
            return None

    async def main():
        host, clock = ScriptedHost(), FakeClock()
        sys.meta_path.insert(0, Watch())
        async with serving(host, directory, clock, settings(pool=1)) as service:
            token = await service.ensure_first_token()
            await service.authenticate(token) if token else None
            await service.create_token(ADMIN, name="x")
            await pool_filled(service, clock, 1)
            warm = await service.create(ALICE, SESSION)
            cold = await service.create(ALICE, MINUTE)
            await service.list(ALICE)
            await warm.detach(clean=True)
            await service.kill(ALICE, cold.sandbox_id)
            await clock.advance(61)
        host.close()

    asyncio.run(main())
    print(late)
"""


@pytest.mark.parametrize("run", ["first", "later"])
def test_nothing_is_imported_after_the_start(tmp_path: Path, run: str) -> None:
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM), str(tmp_path)]
    outputs = [
        subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=50, check=True).stdout
        for _ in range(1 if run == "first" else 2)
    ]
    printed = [line for line in outputs[-1].splitlines() if not line.startswith("20")]
    assert printed == [str(run == "first"), "[]"], "alembic only when a migration is due, and nothing late"
