r"""The questions that chapters ask of networks, one a module.

A protocol is a pure function of an ensemble, of sizes and of a generator; it returns a `NamedTuple` of arrays with the
leading axis `S` of networks. Its docstring states the question and the mathematics, and its tests a case whose answer
is known.
"""
