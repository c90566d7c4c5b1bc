"""Files that a render hands back."""
