"""From a trained model to text: the KV cache, sampling, generation, scoring, streaming."""
