"""From a trained model to text: the cache, sampling, generation, scoring, text as it comes."""
