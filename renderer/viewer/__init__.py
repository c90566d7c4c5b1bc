"""A page on stores for a browser: deep zoom, progress, galleries, comparisons; it only reads."""
