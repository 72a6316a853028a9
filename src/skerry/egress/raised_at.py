"""Where an error comes from, for a log that must not quote it: its message may hold what a sandbox or a
client sent.
"""


def raised_at(error: BaseException) -> str:
    """File and line."""
    where = error.__traceback__
    while where is not None and where.tb_next is not None:
        where = where.tb_next
    return f"{where.tb_frame.f_code.co_filename}:{where.tb_lineno}" if where else "nowhere"
