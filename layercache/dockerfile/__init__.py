"""The Dockerfile front end: text to instruction values, words to text. It is pure."""
