"""Model families: the only place that imports diffusers and transformers."""
