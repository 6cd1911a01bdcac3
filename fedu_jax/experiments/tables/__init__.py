"""The experiments: one table or figure a file, each with `plan(scale)`."""
