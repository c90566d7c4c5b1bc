"""Find the rotary frequencies that would make a picture repeat."""
