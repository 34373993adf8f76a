"""What pages are put together from: a form's fields, a card, a list, each a part with a heading."""
