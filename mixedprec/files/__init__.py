"""Files: written whole or not at all, read as data that somebody else wrote, and errors for what
the machine lacks, such as memory or room on the disk."""
