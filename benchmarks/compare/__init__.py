"""Two models held against each other: on the same rows, by judges, or by people's votes on arms of live traffic."""
