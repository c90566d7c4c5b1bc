"""LoRAs for a model's denoiser, trained at any size with a method's attention."""
