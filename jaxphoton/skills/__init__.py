"""What can be asked of a model: prompts in, grammar while generating, results out.

A skill is data: a prompt, a grammar and a way to read the tokens. Never imports jax; the grammar is written
down once and read twice, as the tables the device steps through (`automaton`) and as plain rules (`grammar`).
"""
