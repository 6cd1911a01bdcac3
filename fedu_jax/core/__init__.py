"""FedU itself, for one client or one server: pure functions on pytrees.

`state` has the nouns. `rounds` has the round: download by an update rule,
local training, upload, aggregation. Nothing here imports another room.
"""
