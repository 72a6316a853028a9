"""The table of all RPC methods; whatever is not in it answers *Method not found*."""

from skerry.api.deno import rpc_environment, rpc_files, rpc_process
from skerry.api.deno.calls import Methods

METHODS: Methods = {**rpc_process.METHODS, **rpc_files.METHODS, **rpc_environment.METHODS}
