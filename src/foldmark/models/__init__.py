"""The models: backbones, heads, checkpoints, devices and inference."""
