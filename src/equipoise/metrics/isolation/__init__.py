"""Generated code in a process of its own: it gives values, and trusted code outside compares them.

Three processes take part, each started from the one before: the guard (holds the clock, ends the others), the tester
(runs the unit tests) and the worker (runs the generated code). All of this uses the standard library alone.
"""
