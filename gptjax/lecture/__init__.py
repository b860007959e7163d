"""The lecture, part by part: each module holds one part's ideas, as functions that run.

training_set   encode, split, the examples inside one block, batches
averaging      four ways to average the past; the last of them is self-attention
attention      the lecture's notes on attention, each as a function to try
positions      how alike positions look in a learned table, and in the Transformer paper's sinusoids
ladder         trains the lecture's models, `gptjax.rungs` and the GPT, with several seeds at once

`python -m gptjax.lecture` trains the whole ladder; docs/lecture.md is the index of the notebooks.
"""
