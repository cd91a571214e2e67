"""An example of plug-ins for clrl: two optimizers and a stream."""
