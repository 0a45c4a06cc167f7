"""PyTorch networks of the neural models; whoever imports this room imports torch."""
