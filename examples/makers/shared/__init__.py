"""What the commands on other tools share: their environments, their texts, and the page."""
