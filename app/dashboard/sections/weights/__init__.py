"""A block's weights on their page."""
