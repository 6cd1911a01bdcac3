"""The experiments. Each file has one table or figure and a `plan(scale)`."""
