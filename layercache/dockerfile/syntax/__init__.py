"""Text to instructions: lines, words, flags, here-documents, expansion of variables.

Imports nothing of `lowering`. Start at `parser`, then `lexer` and `expansion`.
"""
