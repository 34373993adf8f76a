"""A prompt explained: where the quantized model departs from the reference, which block causes it,
and which units at the rescue width repair it."""
