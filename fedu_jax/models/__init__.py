"""Networks: the encoders, the predictor, and their layers."""
