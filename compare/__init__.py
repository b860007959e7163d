"""The same GPT implemented four ways and compared by experiment: `python -m compare`.

To read, in this order:

    linen_gpt.py   this project's own modules: values in, values out
    nnx_gpt.py     Flax NNX: objects that hold their state, in JAX
    torch_gpt.py   PyTorch: objects that hold their state, one operation at a time
    plain_gpt.py   JAX and a dict, without a library; plain_library.py replaces the library
    sampling.py    the loop with which the three on JAX generate text
    tuned.py       this project's CPU products and attention, injected into the three on JAX
    ease/          short programs: what each design makes easy or hard

Each of the four has the same functions: make, forward, loss, train_step, generate, save, load. None
imports another. The code that compares them:

    contestants.py, drive/   the contestants, behind one interface
    weights.py, trees.py     one set of weights, converted to each contestant's names
    figures.py               medians, spreads, and the order of the contestants
    measuring/               equality, counts of products, times measured in turns
    report/                  docs/comparison.md and its pictures
"""
