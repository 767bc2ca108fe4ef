"""`headrace calibrate`: labelled examples in, rules for the model `auto` out."""
