"""The commands of ``gateway``, by subject. Thin: what they do is done below; here are words, options and exit codes."""
