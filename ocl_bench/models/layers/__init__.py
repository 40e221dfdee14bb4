"""Building blocks shared by the models: vision transformer, slot attention, decoders, merging."""
