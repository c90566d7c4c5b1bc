"""Whether a store is what was written into it, and what a resume makes again."""
