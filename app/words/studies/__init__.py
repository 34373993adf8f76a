"""What is said of studies, wherever they are shown."""
