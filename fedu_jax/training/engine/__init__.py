"""The compiled round, and where the clients' state and images are kept."""
