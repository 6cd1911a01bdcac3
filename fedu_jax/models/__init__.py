"""Networks: the encoders, the predictor, and the layers they are made of."""
