"""The compiled round, and the storage of clients' states and images."""
