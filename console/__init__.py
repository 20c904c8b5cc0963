"""Looking: what a person sees in a terminal, and the demo that brings its own broker and Redis."""
