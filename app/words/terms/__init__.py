"""The terms that everything uses, each with one meaning."""
