"""Config fields, their checks, and the functions that the config names."""
