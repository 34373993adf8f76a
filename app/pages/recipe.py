"""..."""

from app.parts import heading


def layout(store, page, jobs):
    return [heading("recipe")]
