"""Update rules: base optimizers and add-ons, on one module or on a stacked population."""
