"""Training, on torch's own engine: presets, data, loops. Started with `torchrun` it uses every process it is given."""
