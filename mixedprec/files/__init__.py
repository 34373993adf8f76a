"""Files: whole or not there, read as data that somebody else wrote, and what they lack."""
