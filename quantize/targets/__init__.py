"""The backends, one file each; `table` lists them.

Every backend starts from the one exported graph, (1, C, 1, T) float32 -> (1, D, 1, 1) float32, and
gives three functions: `lower` (graph -> bytes of the artefact), `calls` (bytes -> the operators in
it) and `facts` (bytes -> what else is known of it, with units in the keys). Where only the compiler
knows the facts, `lower` gives them with the bytes. Tool chains are imported where they are used:
together they take seconds.
"""
