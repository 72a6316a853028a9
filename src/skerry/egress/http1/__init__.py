"""A strict HTTP/1.1 engine without I/O: what is not plainly well-formed is refused, what goes on is written
anew from the parsed form."""
