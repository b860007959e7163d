"""The lecture, part by part: each module is one part's ideas, as functions and modules that run.

training_set   encode, split, the examples inside one block, batches
bigram         the table of what follows what
averaging      four ways to average the past; the last of them is self-attention
attention      the lecture's notes on attention, each as a function to try
positions      a learned table of positions, and the Transformer paper's sinusoids
rungs          the models between the bigram table and the GPT
ladder         all of them, trained with several seeds at once

`python -m gptjax.lecture` climbs the ladder; docs/lecture.md is the walk-through.
"""
