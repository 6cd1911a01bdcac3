"""FedU itself, for one client or one server: pure functions on pytrees.

`state` defines what a client and a server hold. `rounds` runs a round: download
by an update rule, local training, upload, aggregation. Nothing here imports
another folder of the package.
"""
