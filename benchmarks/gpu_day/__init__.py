"""One command that measures a rented GPU within a few minutes."""
