"""Networks. A file here with a function `build(settings, channels, outputs)` is a model that `model.name` can name."""
