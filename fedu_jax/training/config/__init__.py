"""Config fields, their checks, and the functions that their names stand for."""
