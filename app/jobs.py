"""Starting and stopping awqscope's own commands from the dashboard."""

from app.store import Store


class Jobs:
    def __init__(self, store: Store):
        self.store = store
