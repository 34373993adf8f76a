"""What would help a block: alternatives searched for it alone, each measured in its place."""
