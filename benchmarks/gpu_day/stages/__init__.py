"""The measurements of a day, one a module with a function `run`."""
