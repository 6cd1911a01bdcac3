"""From a config to a trained run, its folder, and what a person sees of it."""
