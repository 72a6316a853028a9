"""What a sandbox is: identifiers, limits, durations, sizes and descriptions. Pure: no I/O, no clock, no
randomness."""
