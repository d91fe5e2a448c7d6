"""Fine-tuning a latent diffusion model on a spurious feature, and sampling from it."""
