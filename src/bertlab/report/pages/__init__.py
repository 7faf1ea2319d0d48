"""What a reader sees: pages of blocks, and what stands on which page."""
