"""What is said of a gate's verdict, wherever it is shown."""
