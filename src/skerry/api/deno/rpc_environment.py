"""The `env*` methods: one environment per sandbox, shared by its connections and used by later spawns.

Source: protocol notes, section 3.6.
"""

from skerry.api.deno.calls import CallFailed, Context, Method
from skerry.protocol import deno_params as params
from skerry.protocol.deno_errors import error_object
from skerry.protocol.deno_files import string_map


async def env_get(context: Context, given: params.EnvKey) -> object:
    """The value of a variable, or null."""
    return string_map(await context.agent.env_all()).get(given.key)


async def env_set(context: Context, given: params.EnvSet) -> None:
    """Set a variable."""
    if not given.key or "=" in given.key or "\0" in given.key + given.value:
        raise CallFailed(
            error_object("TypeError", "the name must not be empty or hold '=' or NUL, nor the value NUL")
        )
    await context.agent.env_update({given.key: given.value}, [])


async def env_delete(context: Context, given: params.EnvKey) -> None:
    """Remove a variable; one that is not there is fine."""
    await context.agent.env_update({}, [given.key])


async def env_to_object(context: Context, given: params.Nothing) -> object:
    """All variables."""
    return string_map(await context.agent.env_all())


METHODS = {
    "envGet": Method(params.EnvKey, env_get),
    "envSet": Method(params.EnvSet, env_set),
    "envDelete": Method(params.EnvKey, env_delete),
    "envToObject": Method(params.Nothing, env_to_object),
}
