"""The dashboard: a server that turns addresses into pages, the pages, the commands that are started
from them, and who may see them."""
