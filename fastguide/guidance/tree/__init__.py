"""The tree under `fastguide.TreeSearch`: nodes in flat tensors, descents through them, and samples from their leaves."""
