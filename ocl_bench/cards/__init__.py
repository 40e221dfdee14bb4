"""Task cards and model cards: YAML files that define protocols and describe models."""
