"""What exists for the book alone: its claims, its chapters, and their running."""
