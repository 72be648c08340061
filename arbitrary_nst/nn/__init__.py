"""Mathematics on feature maps: statistics, pyramids, normalization, losses, and the feature networks."""
