"""Instruct models read prompts: the paper's two tasks (Sec. 3.1) in one question, and one checked answer."""
