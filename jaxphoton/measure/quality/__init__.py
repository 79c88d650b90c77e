"""What few bits cost: the answers of a model with its weights in one form against those in another."""
