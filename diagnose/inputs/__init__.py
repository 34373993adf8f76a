"""What a run works on: texts, model and tokenizer, found, checked and opened."""
